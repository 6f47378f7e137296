//! What outside this program may keep datagrams from it: the firewall, and settings of the kernel.

use std::{fs, process::Command};

use nicring::Nics;

use super::{
    firewall::{Fate, Ruleset},
    row,
};
use crate::cli::text::printable;

/// Lines about the usual causes.
pub fn lines(ports: &[u16], nics: &Nics) -> Vec<String> {
    let mut lines = firewall(ports);
    lines.extend(reverse_path_filters(nics));
    lines.extend(memberships());
    lines
}

fn firewall(ports: &[u16]) -> Vec<String> {
    let listed = Command::new("nft").args(["-j", "list", "ruleset"]).output();
    let ruleset = match &listed {
        Ok(output) if output.status.success() => Ruleset::parse(&output.stdout),
        _ => None,
    };
    let Some(ruleset) = ruleset else {
        let why = match listed {
            Err(_) => "there is no program `nft` that would list the rules".to_owned(),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let line = said.lines().next().unwrap_or("nothing that can be read");
                format!("`nft -j list ruleset` says: {}", printable(line))
            }
        };
        return row("firewall", &format!("unknown: {why}"));
    };
    let of_port = |port: &u16| {
        let text = match ruleset.fate_of(*port) {
            Fate::Passes => "lets it pass".to_owned(),
            Fate::MayPass(rule) => format!("lets it pass only from some: {rule}"),
            Fate::Dropped(rule) => format!("DROPS IT: {rule} (`nft -a list ruleset` shows it)"),
        };
        row(&format!("firewall, UDP {port}"), &text)
    };
    let mut lines: Vec<_> = ports.iter().flat_map(of_port).collect();
    // Rules that nft does not know of.
    let legacy = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if legacy.lines().any(|table| table == "filter") {
        lines.extend(row("firewall, iptables-legacy", "has rules, which are not looked at here"));
    }
    lines
}

/// A strict filter drops what comes by another NIC than the way back to its source would take.
fn reverse_path_filters(nics: &Nics) -> Vec<String> {
    let read = |name: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        fs::read_to_string(path).ok()?.trim().parse::<u8>().ok()
    };
    let all = read("all").unwrap_or(0);
    // The kernel takes the larger of the two.
    let is_strict = |name: &str| read(name).unwrap_or(0).max(all) == 1;
    let strict = nics.iter().filter(|nic| nic.is_up && !nic.is_loopback && is_strict(&nic.name));
    let strict: Vec<_> = strict.map(|nic| printable(&nic.name)).collect();
    let text = match strict.as_slice() {
        [] => "not strict".to_owned(),
        names => format!(
            "strict on {}: what comes by another NIC than the way back would take is dropped; 2 is \
             loose (sysctl net.ipv4.conf.NIC.rp_filter)",
            names.join(", ")
        ),
    };
    row("rp_filter", &text)
}

fn memberships() -> Vec<String> {
    let read = fs::read_to_string("/proc/sys/net/ipv4/igmp_max_memberships");
    let text = match read.ok().and_then(|text| text.trim().parse::<u32>().ok()) {
        None => "unknown".to_owned(),
        Some(0) => "0: NO GROUP CAN BE JOINED (net.ipv4.igmp_max_memberships)".to_owned(),
        Some(count) => format!("{count} a socket; each group and NIC has a socket of its own"),
    };
    row("groups", &text)
}
