//! `search`: parsers, writers, responders and the name table, without a socket; and `Answerer`,
//! with those of an engine.
#![cfg(feature = "search")]

#[path = "../common/mod.rs"]
mod common;

mod answerer;
mod ca;
mod names;
mod pack;
mod pva;
mod together;
mod total;
