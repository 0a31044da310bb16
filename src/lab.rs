//! Simulated mailbox servers and Outlooks, for demo, tests and benches.
