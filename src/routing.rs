//! Where a request goes: one pure decision.
