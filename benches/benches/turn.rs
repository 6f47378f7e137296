//! Receiving what already waits in the sockets of 4 NICs, by one thread that sends it to itself: the
//! cost of receiving alone, without waking up and without another CPU.

#[cfg(target_os = "linux")]
#[path = "turn/linux.rs"]
mod linux;
#[cfg(target_os = "linux")]
use linux::main as run;

#[cfg(not(target_os = "linux"))]
fn run() {
    println!("turn: needs Linux: network namespaces");
}

fn main() {
    run();
}
