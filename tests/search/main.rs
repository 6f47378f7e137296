//! `search`: parsers, writers, responders and the name table, without a socket.
#![cfg(feature = "search")]

mod ca;
mod names;
mod pack;
mod pva;
mod together;
mod total;
