//! Every Prometheus family, a field with typed methods.
