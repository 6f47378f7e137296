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
        // What may have been left already is only perhaps about what comes here.
        let mut best = Matches::Yes;
        for rule in of_chain {
            let name = RuleName { chain: chain.clone(), handle: rule["handle"].as_u64() };
            let Some(parts) = rule["expr"].as_array() else { continue };
            let matches = parts.iter().map(|part| matches_port(part, port)).min();
            let matches = matches.unwrap_or(Matches::Yes).min(best);
            if matches == Matches::No {
                continue;
            }
            for part in parts {
                let (verdict, matches) = match action(part, port) {
                    None => continue,
                    Some((Action::Accept, how)) => (Verdict::Accept, matches.min(how)),
                    Some((Action::Drop, how)) => (Verdict::Drop(name.clone()), matches.min(how)),
                    Some((Action::Return, how)) if matches.min(how) == Matches::Yes => {
                        return Verdict::None;
                    }
                    Some((Action::Return, _)) => {
                        best = Matches::Perhaps;
                        continue;
                    }
                    Some((Action::Jump(_) | Action::Goto(_), _)) if depth == DEPTH_MAX => continue,
                    Some((Action::Jump(target), how)) => {
                        let target = (chain.0.clone(), chain.1.clone(), target);
                        (self.walk(&target, port, doubt, depth + 1), matches.min(how))
                    }
                    Some((Action::Goto(target), how)) => {
                        let target = (chain.0.clone(), chain.1.clone(), target);
                        let verdict = self.walk(&target, port, doubt, depth + 1);
                        match (verdict, matches.min(how)) {
                            (Verdict::None, Matches::Yes) => return Verdict::None,
                            other => other,
                        }
                    }
                };
                match (verdict, matches) {
                    (Verdict::None, _) | (_, Matches::No) => {}
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

/// Chains that jump to each other more deeply are not followed.
const DEPTH_MAX: usize = 16;

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

/// What a part of a rule does with a datagram.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// The action of a part of a rule, and whether it is for this port; `None` if it has none.
fn action(part: &Value, port: u16) -> Option<(Action, Matches)> {
    let has = |kind: &str| part.get(kind).is_some();
    let target = |kind: &str| part.get(kind)?["target"].as_str().map(str::to_owned);
    if has("accept") {
        return Some((Action::Accept, Matches::Yes));
    }
    if has("drop") || has("reject") {
        return Some((Action::Drop, Matches::Yes));
    }
    if has("return") {
        return Some((Action::Return, Matches::Yes));
    }
    if let Some(target) = target("jump") {
        return Some((Action::Jump(target), Matches::Yes));
    }
    if let Some(target) = target("goto") {
        return Some((Action::Goto(target), Matches::Yes));
    }
    if part["xt"]["type"] == "target" {
        // iptables, where nft has no words of its own.
        let drops = matches!(part["xt"]["name"].as_str(), Some("REJECT" | "DROP" | "TARPIT"));
        return drops.then_some((Action::Drop, Matches::Yes));
    }
    part.get("vmap").and_then(|map| mapped_action(map, port))
}

/// The action of a verdict map. One of which the keys are not known may do what it does to any.
fn mapped_action(map: &Value, port: u16) -> Option<(Action, Matches)> {
    let is_of_ports = is_destination_port(&map["key"]);
    let Some(entries) = map["data"]["set"].as_array() else {
        return Some((Action::Drop, Matches::Perhaps)); // a map with a name
    };
    let of_entry = |entry: &Value| {
        let matches = match is_of_ports {
            true => contains_port(&entry[0], port),
            false => Matches::Perhaps,
        };
        let (action, _) = action(&entry[1], port).filter(|_| matches != Matches::No)?;
        Some((action, matches))
    };
    let mut actions = entries.iter().filter_map(of_entry);
    let drops = |(action, _): &(Action, Matches)| *action == Action::Drop;
    let first = actions.next()?;
    if first.1 == Matches::Yes || drops(&first) {
        return Some(first);
    }
    Some(actions.find(drops).unwrap_or(first))
}

fn is_destination_port(left: &Value) -> bool {
    let payload = &left["payload"];
    matches!(payload["protocol"].as_str(), Some("udp" | "th")) && payload["field"] == "dport"
}

/// Whether a part of a rule lets a new datagram to this UDP port go on to the next part.
fn matches_port(part: &Value, port: u16) -> Matches {
    if part["xt"]["type"] == "target" || part.get("vmap").is_some() {
        return Matches::Yes; // an action
    }
    let Some(compared) = part.get("match") else {
        // Actions and notes apply to all that come so far. Limits, counts and what only iptables
        // understands apply to some.
        const TO_ALL: [&str; 9] =
            ["accept", "drop", "reject", "return", "jump", "goto", "counter", "log", "mangle"];
        let is_to_all = TO_ALL.iter().any(|kind| part.get(kind).is_some());
        return if is_to_all { Matches::Yes } else { Matches::Perhaps };
    };
    let (left, right) = (&compared["left"], &compared["right"]);
    let protocol = left["payload"]["protocol"].as_str();
    let found = if is_destination_port(left) {
        contains_port(right, port)
    } else if matches!(protocol, Some("tcp" | "icmp" | "icmpv6" | "sctp" | "igmp" | "ip6")) {
        return Matches::No;
    } else if left["meta"]["key"] == "l4proto"
        || protocol == Some("ip") && left["payload"]["field"] == "protocol"
    {
        contains(right, &|item| *item == "udp" || item.as_u64() == Some(17))
    } else if left["meta"]["key"] == "nfproto" {
        contains(right, &|item| *item == "ipv4")
    } else if left["ct"]["key"] == "state" {
        contains(right, &|item| *item == "new")
    } else {
        Matches::Perhaps
    };
    match (found, compared["op"] == "!=") {
        (Matches::Yes, true) => Matches::No,
        (Matches::No, true) => Matches::Yes,
        (found, _) => found,
    }
}

fn contains_port(right: &Value, port: u16) -> Matches {
    contains(right, &|item| match item["range"].as_array().map(Vec::as_slice) {
        Some([low, high]) => {
            let (low, high) = (low.as_u64().unwrap_or(0), high.as_u64().unwrap_or(0));
            (low..=high).contains(&port.into())
        }
        _ => item.as_u64() == Some(port.into()),
    })
}

/// Whether a value is such a one, or a set that has one. Of a set with a name nobody knows here
/// what is in it.
fn contains(right: &Value, is_it: &dyn Fn(&Value) -> bool) -> Matches {
    if right.as_str().is_some_and(|name| name.starts_with('@')) {
        return Matches::Perhaps;
    }
    // A set's element may have a comment or a timeout.
    let right = right.get("elem").map_or(right, |elem| &elem["val"]);
    match right.get("set").and_then(Value::as_array).or(right.as_array()) {
        Some(set) => set.iter().map(|item| contains(item, is_it)).max().unwrap_or(Matches::No),
        None if is_it(right) => Matches::Yes,
        None => Matches::No,
    }
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
    fn what_depends_on_more_than_the_port_is_in_doubt() {
        let (port, drop) = (dport(&json!(5064)), json!({"drop": null}));
        let may_pass = "may pass: rule 0 of inet filter input";
        for limit in [
            json!({"limit": {"rate": 100, "per": "second", "inv": true}}),
            json!({"ct count": {"val": 10, "inv": true}}),
            json!({"xt": {"type": "match", "name": "geoip"}}),
            dport(&json!("@epics")),
        ] {
            assert_eq!(fate("accept", &[json!([port, limit, drop])]), may_pass, "{limit}");
        }
        let accept = json!([dport(&json!("@epics")), {"accept": null}]);
        assert_eq!(fate("drop", &[accept]), "may pass: the policy of inet filter input");
        let returned = json!([source(), {"return": null}]);
        assert_eq!(
            fate("accept", &[returned, json!([drop])]),
            "may pass: rule 1 of inet filter input"
        );
        let returned = json!([port, {"return": null}]);
        assert_eq!(fate("accept", &[returned, json!([drop])]), "passes");
    }

    #[test]
    fn what_iptables_made_and_maps_are_understood() {
        let target = |name: &str| json!({"xt": {"type": "target", "name": name}});
        let dropped = "dropped: rule 0 of inet filter input";
        assert_eq!(fate("accept", &[json!([{"counter": {}}, target("REJECT")])]), dropped);
        assert_eq!(fate("accept", &[json!([{"counter": {}}, target("LOG")])]), "passes");
        let states = state(&json!({"set": ["new", "established"]}));
        let accept = json!([dport(&json!(5064)), states, {"accept": null}]);
        assert_eq!(fate("drop", &[accept]), "passes");
        let key = json!({"payload": {"protocol": "udp", "field": "dport"}});
        let map = |port: u16| {
            let set = json!([[80, {"accept": null}], [port, {"drop": null}]]);
            json!([{"vmap": {"key": key, "data": {"set": set}}}])
        };
        assert_eq!(fate("accept", &[map(5064)]), dropped);
        assert_eq!(fate("accept", &[map(5065)]), "passes");
        let named = json!([{"vmap": {"key": key, "data": "@verdicts"}}]);
        assert_eq!(fate("accept", &[named]), "may pass: rule 0 of inet filter input");
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
