//! The guide.
//!
//! # The way of a reply
//! # One socket a class a NIC
