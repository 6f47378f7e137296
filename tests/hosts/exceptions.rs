//! What the engine does not hear although a plain server does, each with the reason.

use crate::{
    host::{Host, Question},
    oracle::Mode,
};

/// Why the engine need not hear this; `None` if it has to.
pub fn reason(_host: &Host, _mode: Mode, _question: &Question) -> Option<&'static str> {
    None
}
