//! Cases that hold on every system, since nicring's own code decides them: under Wine they prove
//! for Windows what they say.

mod life;
mod platforms;
mod receive;
mod reply;
mod settings;
