//! Cases that nicring's own code decides, so that they hold on every system. Run under Wine, they
//! prove their claims for Windows too.

mod life;
mod platforms;
mod receive;
mod reply;
mod settings;
