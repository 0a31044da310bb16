//! The administrator's door: metrics, status, reload, drain.
