//! What a request costs in CPU and bytes.
