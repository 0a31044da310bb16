//! Who a client is: the ordered chain of schemes.
