//! CA and PVA SEARCH.
