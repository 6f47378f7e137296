//! What the rules of nftables do with datagrams to a UDP port: as `nft -j list ruleset` tells them
//! (libnftables-json(5)), those that iptables made included.
//!
//! It is an estimate. What depends on more than the port, such as the source, counts as "some".

use std::fmt;

use serde_json::Value;

/// What happens to a datagram to a port of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Passes,
    /// It depends on more than the port.
    MayPass(RuleName),
    Dropped(RuleName),
}

/// A rule, or the policy of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleName {
    chain: ChainName,
    /// `None` for the policy.
    handle: Option<u64>,
}

type ChainName = (String, String, String);

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, table, chain) = &self.chain;
        match self.handle {
            Some(handle) => write!(f, "rule {handle} of {family} {table} {chain}"),
            None => write!(f, "the policy of {family} {table} {chain}"),
        }
    }
}

/// All rules of this network namespace.
#[derive(Debug)]
pub struct Ruleset {
    chains: Vec<Value>,
    rules: Vec<Value>,
}

/// Whether a rule is about a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Matches {
    No,
    Perhaps,
    Yes,
}

/// What a chain has decided.
#[derive(Debug)]
enum Verdict {
    Accept,
    Drop(RuleName),
    /// The chain was left without a decision.
    None,
}

impl Ruleset {
    pub fn parse(json: &[u8]) -> Option<Self> {
        let mut all: Value = serde_json::from_slice(json).ok()?;
        let items = all.get_mut("nftables")?.as_array_mut()?;
        let take = |kind: &str, items: &[Value]| -> Vec<Value> {
            items.iter().filter_map(|item| item.get(kind)).cloned().collect()
        };
        Some(Self { chains: take("chain", items), rules: take("rule", items) })
    }

    /// What happens to a datagram to this UDP port, in the chains that see what is for this host.
    pub fn fate_of(&self, port: u16) -> Fate {
        let sees_input = |chain: &&Value| {
            let hook = chain["hook"].as_str().unwrap_or_default();
            let family = chain["family"].as_str().unwrap_or_default();
            matches!(hook, "input" | "prerouting" | "ingress") && matches!(family, "ip" | "inet")
        };
        let mut fate = Fate::Passes;
        for chain in self.chains.iter().filter(sees_input) {
            let mut doubt = None;
            let name = name_of(chain, "name");
            let dropped_by = match self.walk(&name, port, &mut doubt, 0) {
                Verdict::Drop(rule) => Some(rule),
                Verdict::None if chain["policy"] == "drop" => {
                    Some(RuleName { chain: name, handle: None })
                }
                Verdict::Accept | Verdict::None => None,
            };
            match (dropped_by, doubt) {
                (Some(rule), None) => return Fate::Dropped(rule),
                // What some rule perhaps accepts passes from some, and so does what one perhaps
                // drops.
                (Some(rule), Some(_)) | (None, Some((rule, Doubt::Drops))) => {
                    fate = Fate::MayPass(rule);
                }
                (None, _) => {}
            }
        }
        fate
    }

    fn walk(
        &self,
        chain: &ChainName,
        port: u16,
        doubt: &mut Option<(RuleName, Doubt)>,
        depth: usize,
    ) -> Verdict {
        let of_chain = self.rules.iter().filter(|rule| name_of(rule, "chain") == *chain);
        for rule in of_chain {
            let name = RuleName { chain: chain.clone(), handle: rule["handle"].as_u64() };
            let Some(parts) = rule["expr"].as_array() else { continue };
            let matches = parts.iter().map(|part| matches_port(part, port)).min();
            let matches = matches.unwrap_or(Matches::Yes);
            if matches == Matches::No {
                continue;
            }
            for part in parts {
                let has = |kind: &str| part.get(kind).is_some();
                let verdict = if has("accept") {
                    Verdict::Accept
                } else if has("drop") || has("reject") {
                    Verdict::Drop(name.clone())
                } else if let Some(target) = jump_target(part).filter(|_| depth < 16) {
                    let target = (chain.0.clone(), chain.1.clone(), target);
                    self.walk(&target, port, doubt, depth + 1)
                } else {
                    continue;
                };
                match (verdict, matches) {
                    (Verdict::None, _) => {}
                    (verdict, Matches::Yes) => return verdict,
                    (Verdict::Drop(rule), _) => *doubt = Some((rule, Doubt::Drops)),
                    (Verdict::Accept, _) => {
                        doubt.get_or_insert((name.clone(), Doubt::Accepts));
                    }
                }
            }
        }
        Verdict::None
    }
}

/// What a rule does that is perhaps about a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    Accepts,
    Drops,
}

fn name_of(item: &Value, key: &str) -> ChainName {
    let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
    (text("family"), text("table"), text(key))
}

fn jump_target(part: &Value) -> Option<String> {
    let jump = part.get("jump").or_else(|| part.get("goto"))?;
    Some(jump["target"].as_str()?.to_owned())
}

/// Whether a part of a rule lets a new datagram to this UDP port go on to the next part.
fn matches_port(part: &Value, port: u16) -> Matches {
    if part.get("xt").is_some() {
        return Matches::Perhaps; // what only iptables understands
    }
    let Some(compared) = part.get("match") else {
        return Matches::Yes;
    };
    let (left, right) = (&compared["left"], &compared["right"]);
    let is_negated = compared["op"] == "!=";
    let found = match (left["payload"]["protocol"].as_str(), left["payload"]["field"].as_str()) {
        (Some("udp" | "th"), Some("dport")) => Some(contains_port(right, port)),
        (Some("tcp" | "icmp" | "icmpv6" | "sctp" | "igmp"), _) => return Matches::No,
        (Some("ip"), Some("protocol")) => Some(contains_udp(right)),
        (Some("ip6"), _) => return Matches::No,
        _ if left["meta"]["key"] == "l4proto" => Some(contains_udp(right)),
        _ if left["meta"]["key"] == "nfproto" => Some(*right == "ipv4"),
        _ if left["ct"]["key"] == "state" => {
            let states = right.as_array().cloned().unwrap_or_else(|| vec![right.clone()]);
            Some(states.iter().any(|state| state == "new"))
        }
        _ => None,
    };
    match found {
        None => Matches::Perhaps,
        Some(found) if found != is_negated => Matches::Yes,
        Some(_) => Matches::No,
    }
}

/// Whether a number, a range or a set has this port.
fn contains_port(right: &Value, port: u16) -> bool {
    if let Some(set) = right.get("set").and_then(Value::as_array).or(right.as_array()) {
        return set.iter().any(|item| contains_port(item, port));
    }
    if let Some([low, high]) = right.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        let (low, high) = (low.as_u64().unwrap_or(0), high.as_u64().unwrap_or(0));
        return (low..=high).contains(&port.into());
    }
    right.as_u64() == Some(port.into())
}

fn contains_udp(right: &Value) -> bool {
    if let Some(set) = right.get("set").and_then(Value::as_array).or(right.as_array()) {
        return set.iter().any(contains_udp);
    }
    *right == "udp" || right.as_u64() == Some(17)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// An input chain with this policy and these rules.
    fn ruleset(policy: &str, rules: &[Value]) -> Ruleset {
        let rule = |(handle, expr): (usize, &Value)| {
            let (family, table, chain) = ("inet", "filter", "input");
            json!({"rule": {"family": family, "table": table, "chain": chain, "handle": handle,
                "expr": expr}})
        };
        let mut items = vec![json!({"chain": {"family": "inet", "table": "filter",
            "name": "input", "hook": "input", "policy": policy}})];
        items.extend(rules.iter().enumerate().map(rule));
        let text = json!({ "nftables": items }).to_string();
        Ruleset::parse(text.as_bytes()).unwrap()
    }

    fn dport(right: &Value) -> Value {
        let left = json!({"payload": {"protocol": "udp", "field": "dport"}});
        json!({"match": {"op": "==", "left": left, "right": right}})
    }

    fn state(right: &Value) -> Value {
        json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": right}})
    }

    fn source() -> Value {
        let left = json!({"payload": {"protocol": "ip", "field": "saddr"}});
        json!({"match": {"op": "==", "left": left, "right": "10.0.0.1"}})
    }

    fn fate(policy: &str, rules: &[Value]) -> String {
        match ruleset(policy, rules).fate_of(5064) {
            Fate::Passes => "passes".to_owned(),
            Fate::MayPass(rule) => format!("may pass: {rule}"),
            Fate::Dropped(rule) => format!("dropped: {rule}"),
        }
    }

    #[test]
    fn rules_for_a_port_are_found_whatever_their_form() {
        let (accept, drop) = (json!({"accept": null}), json!({"drop": null}));
        assert_eq!(fate("accept", &[]), "passes");
        for right in [
            json!(5064),
            json!({"range": [5000, 5100]}),
            json!({"set": [80, 5064]}),
            json!({"set": [{"range": [5064, 5065]}, 80]}),
        ] {
            let rule = json!([dport(&right), drop]);
            assert_eq!(fate("accept", &[rule]), "dropped: rule 0 of inet filter input", "{right}");
        }
        assert_eq!(fate("accept", &[json!([dport(&json!(5065)), drop])]), "passes");
        let reject = json!([dport(&json!(5064)), {"reject": {}}]);
        assert_eq!(fate("accept", &[reject]), "dropped: rule 0 of inet filter input");
        // The first that is about it decides.
        let rules = [json!([dport(&json!(5064)), accept]), json!([drop])];
        assert_eq!(fate("drop", &rules), "passes");
    }

    #[test]
    fn a_policy_that_drops_needs_a_rule_that_accepts() {
        let (accept, established) = (json!({"accept": null}), json!(["established", "related"]));
        let usual = json!([state(&established), accept]);
        assert_eq!(
            fate("drop", std::slice::from_ref(&usual)),
            "dropped: the policy of inet filter input"
        );
        let opened = json!([state(&json!("new")), dport(&json!(5064)), accept]);
        assert_eq!(fate("drop", &[usual.clone(), opened]), "passes");
        let from_one = json!([source(), dport(&json!(5064)), accept]);
        assert_eq!(fate("drop", &[usual, from_one]), "may pass: the policy of inet filter input");
        let one_out = json!([source(), {"drop": null}]);
        assert_eq!(fate("accept", &[one_out]), "may pass: rule 0 of inet filter input");
    }

    #[test]
    fn chains_that_are_jumped_to_count() {
        let text = json!({"nftables": [
            {"chain": {"family": "ip", "table": "t", "name": "in", "hook": "input",
                "policy": "accept"}},
            {"chain": {"family": "ip", "table": "t", "name": "sub"}},
            {"rule": {"family": "ip", "table": "t", "chain": "in", "handle": 1,
                "expr": [{"jump": {"target": "sub"}}]}},
            {"rule": {"family": "ip", "table": "t", "chain": "sub", "handle": 2,
                "expr": [dport(&json!(5064)), {"drop": null}]}},
        ]});
        let ruleset = Ruleset::parse(text.to_string().as_bytes()).unwrap();
        let Fate::Dropped(rule) = ruleset.fate_of(5064) else { panic!("it is dropped") };
        assert_eq!(rule.to_string(), "rule 2 of ip t sub");
        assert_eq!(ruleset.fate_of(5065), Fate::Passes);
        assert!(Ruleset::parse(b"{}").is_none());
    }
}
