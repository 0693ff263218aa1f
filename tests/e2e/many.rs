//! 10,000 rules, compared with a model that looks at each of them.

use std::collections::BTreeMap;

use cangw_tests::frame::{EFF, Frame, RTR};
use cangw_tests::lab::{Lab, Link};
use cangw_tests::tool::{Cangw, load, try_load};

const RULES: usize = 10_000;
const TARGETS: [&str; 3] = ["x1", "x2", "x3"];

#[derive(Clone, Copy)]
struct Rule {
    id: u32,
    mask: u32,
    target: usize,
}

impl Rule {
    fn matches(self, id: u32) -> bool {
        // As can-gw, which takes a mask with the extended flag for one of 11 bits when the identifier is a standard one.
        let mask = if self.mask & EFF != 0 && self.id & EFF == 0 {
            self.mask & (EFF | RTR | 0x7FF)
        } else {
            self.mask
        };
        id & mask == self.id & mask
    }
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.0 >> 33) as u32) % below
    }
}

fn rules() -> Vec<Rule> {
    const STANDARD_DATA: u32 = EFF | RTR | 0x7FF;
    let mut random = Random(1);
    let mut rules = Vec::with_capacity(RULES);
    let mut add = |id, mask| {
        let target = rules.len() % TARGETS.len();
        rules.push(Rule { id, mask, target });
    };
    for id in 0..2048 {
        add(id, STANDARD_DATA);
        add(id, STANDARD_DATA);
    }
    for n in 0..896 {
        add((n % 128) << 4, STANDARD_DATA & !0xF);
    }
    for n in 0..8 {
        add(n << 8, STANDARD_DATA & !0xFF);
    }
    for _ in 0..4000 {
        add(EFF | random.next(1 << 29), EFF | RTR | 0x1FFF_FFFF);
    }
    // J1939: a parameter group, whatever the priority and the source.
    for n in 0..1000 {
        add(EFF | ((0xF000 + n) << 8), EFF | 0x03FF_FF00);
    }
    assert_eq!(rules.len(), RULES);
    rules
}

/// Frames around the rules' identifiers.
fn samples(rules: &[Rule]) -> Vec<Frame> {
    let mut random = Random(2);
    let mut frames = Vec::new();
    for number in 0..500u32 {
        let rule = rules[random.next(rules.len() as u32) as usize];
        let free = random.next(1 << 29) & !rule.mask;
        let id = match number % 5 {
            0 => random.next(2048),
            1 => EFF | random.next(1 << 29),
            2 if rule.id & EFF != 0 => rule.id ^ 1,
            _ if rule.id & EFF != 0 => rule.id | free,
            _ => rule.id | free & 0x7FF,
        };
        let data = number.to_le_bytes();
        frames.push(match number % 17 {
            0 => Frame::remote(id, 2),
            _ => Frame::classic(id, &data),
        });
    }
    frames
}

#[test]
fn ten_thousand_rules() {
    let mut lab = Lab::new(
        "many",
        &[
            Link::Vxcan("x0"),
            Link::Vxcan("x1"),
            Link::Vxcan("x2"),
            Link::Vxcan("x3"),
        ],
    );
    let rules = rules();
    let mut file = String::from("# a comment\n\n");
    for rule in &rules {
        let target = TARGETS[rule.target];
        file += &format!("-s x0 -d {target} -f {:X}:{:X}\n", rule.id, rule.mask);
    }
    load(&lab.namespace, &file);
    let listed = Cangw::Ours.list(&lab.namespace);
    assert_eq!(listed.len(), RULES);

    let samples = samples(&rules);
    let mut expected: BTreeMap<String, Vec<Frame>> = BTreeMap::new();
    let mut handled = vec![0u64; RULES];
    for frame in &samples {
        for (rule, count) in rules.iter().zip(&mut handled) {
            if rule.matches(frame.id()) {
                *count += 1;
                let far = format!("{}p", TARGETS[rule.target]);
                expected.entry(far).or_default().push(frame.clone());
            }
        }
        lab.send("x0p", frame);
    }
    let mut seen = lab.take();
    assert_eq!(seen.remove("x0p").as_ref(), Some(&samples));
    assert_eq!(seen.remove("x0").as_ref(), Some(&samples));
    for far in ["x1p", "x2p", "x3p"] {
        assert_eq!(seen.remove(far), expected.remove(far), "on {far}");
    }
    assert!(handled.iter().sum::<u64>() > 1000, "the samples meet rules");
    let listed = Cangw::Ours.list(&lab.namespace);
    let counted: Vec<u64> = listed.iter().rev().map(|rule| rule.handled).collect();
    assert!(counted == handled, "each rule counts its own frames");

    // A file with one bad line changes nothing.
    let answer = try_load(&lab.namespace, "-s x0 -d x1\n-s x0 -d nosuch\n");
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stderr.contains("nosuch"), "{answer:?}");
    assert!(Cangw::Ours.list(&lab.namespace) == listed);

    // What `cangw -L` prints can be loaded.
    let text = Cangw::Ours.must(&lab.namespace, "-L");
    Cangw::Ours.must(&lab.namespace, "-F");
    load(
        &lab.namespace,
        &text.lines().rev().collect::<Vec<_>>().join("\n"),
    );
    let again = Cangw::Ours.list(&lab.namespace);
    assert!(
        again
            .iter()
            .map(|r| &r.rule)
            .eq(listed.iter().map(|r| &r.rule))
    );
}

#[test]
fn more_rules_for_a_frame_than_fit_are_refused() {
    let lab = Lab::new("many", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    let line = "-s x0 -d x1 -f 123:7FF\n";
    load(&lab.namespace, &line.repeat(256));
    lab.send("x0p", &Frame::classic(0x123, &[]));
    let before = Cangw::Ours.list(&lab.namespace);
    assert_eq!(before.len(), 256);
    assert!(before.iter().all(|rule| rule.handled == 1));
    let answer = Cangw::Ours.run(&lab.namespace, "-A -s x0 -d x1");
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stderr.contains("256"), "{answer:?}");
    assert_eq!(Cangw::Ours.list(&lab.namespace), before);
}
