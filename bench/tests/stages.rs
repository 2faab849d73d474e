//! What the benches in process run is what the benches on the wire run.

use bench::cores::crew::RULES;
use dataplane::packet::Family;
use dataplane::rules::model::{Match, Policy, Ruleset, Target};

type Meaning = (Option<Policy>, Vec<(Vec<Match>, Target)>);

/// What a ruleset's filter chains say, their rules' names left out.
fn meaning(ruleset: &Ruleset) -> Vec<Meaning> {
    let rules = |chain: &dataplane::rules::model::Chain| {
        chain.rules.iter().map(|rule| (rule.matches.clone(), rule.target)).collect()
    };
    ruleset.chains.iter().map(|chain| (chain.policy, rules(chain))).collect()
}

#[test]
fn the_ten_rules_are_those_of_the_file() {
    let read = control::rules_file::understand(RULES.as_bytes(), "bench10", Family::V4, &[]);
    let read = read.ruleset.expect("good rules");
    assert_eq!(meaning(&stages::bench10()), meaning(&read));
    assert_eq!(stages::bench10().around, read.around);
}
