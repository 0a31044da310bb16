use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[expect(
    clippy::disallowed_methods,
    reason = "some first instant is needed; nothing waits for it"
)]
fn start() -> Instant {
    Instant::now()
}

fn settings() -> HealthSettings {
    HealthSettings {
        interval: 2 * SECOND,
        timeout: SECOND,
        fall: 3,
        rise: 2,
        panic_threshold: 0,
        page: None,
        rpc_page: None,
        probe: None,
    }
}

fn name(text: &str) -> ServerName {
    ServerName::new(text)
}

/// A table with servers of weight 1, and a clock that moves a second per observation.
struct Site {
    table: HealthTable,
    now: Instant,
}

impl Site {
    fn new(servers: &[&str], panic_threshold: u32) -> Self {
        let settings = HealthSettings {
            panic_threshold,
            ..settings()
        };
        let now = start();
        let servers = servers.iter().map(|server| (name(server), 1));
        Self {
            table: HealthTable::new(&settings, servers, now),
            now,
        }
    }

    fn see(&mut self, server: &str, observation: Observation) -> Option<Flip> {
        self.now += SECOND;
        self.table.observe(&name(server), observation, self.now)
    }

    fn see_all(&mut self, server: &str, observations: &[Observation]) -> Vec<bool> {
        let mut flips = Vec::new();
        for observation in observations {
            flips.extend(self.see(server, *observation).map(|flip| flip.is_up));
        }
        flips
    }
}

use Observation::{Answered, CheckPassed, Deadline, PageFailed, ProbeFailed, Refused, Reset};

#[test]
fn everybody_begins_up() {
    let view = Site::new(&["A"], 0).table.view();

    assert!(view.is_up(&name("A")));
    assert!(view.is_eligible(&name("A")));
    assert_eq!(view.reason(&name("A")), None);
}

#[test]
fn a_server_nobody_watches_is_eligible_and_its_observations_are_passed_over() {
    let mut site = Site::new(&["A"], 0);

    assert!(site.see_all("X", &[Refused, Refused, Refused]).is_empty());
    assert!(site.table.view().is_eligible(&name("X")));
    assert_eq!(site.table.view().iter().count(), 1);
}

#[test]
fn fall_failures_in_a_row_mark_down_and_the_flip_is_told_once() {
    let mut site = Site::new(&["A", "B"], 0);

    assert_eq!(site.see("A", Refused), None);
    assert_eq!(site.see("A", Reset), None);
    let flip = site.see("A", Deadline).unwrap();

    assert!(!flip.is_up);
    assert_eq!(
        (flip.reason, flip.in_a_row, flip.after),
        ("no answer in time", 3, 3 * SECOND)
    );
    assert_eq!(site.see("A", Refused), None);
    let view = site.table.view();
    assert!(!view.is_eligible(&name("A")));
    assert_eq!(view.reason(&name("A")), Some("connection refused"));
    assert!(view.is_eligible(&name("B")));
}

#[test]
fn a_success_in_between_begins_the_count_anew() {
    let mut site = Site::new(&["A"], 0);

    let flips = site.see_all(
        "A",
        &[Refused, Refused, Answered, Refused, Refused, CheckPassed],
    );

    assert!(flips.is_empty());
    assert!(site.table.view().is_up(&name("A")));
}

#[test]
fn rise_successes_in_a_row_mark_up_again() {
    let mut site = Site::new(&["A"], 0);
    site.see_all("A", &[Refused, Refused, Refused]);

    assert!(
        site.see_all("A", &[CheckPassed, Refused, CheckPassed])
            .is_empty()
    );
    assert_eq!(site.see_all("A", &[CheckPassed]), [true]);
    assert_eq!(site.table.view().reason(&name("A")), None);
}

#[test]
fn real_traffic_alone_marks_up_as_it_marks_down() {
    let mut site = Site::new(&["A"], 0);

    assert_eq!(site.see_all("A", &[Reset, Reset, Reset]), [false]);
    assert_eq!(site.see_all("A", &[Answered, Answered]), [true]);
}

#[test]
fn answers_to_clients_do_not_hide_a_page_that_says_no() {
    let mut site = Site::new(&["A"], 0);

    let flips = site.see_all(
        "A",
        &[PageFailed, Answered, ProbeFailed, Answered, PageFailed],
    );

    assert_eq!(flips, [false]);
}

#[test]
fn only_a_check_brings_back_whom_a_check_took_out() {
    let mut site = Site::new(&["A"], 0);
    site.see_all("A", &[PageFailed, PageFailed, PageFailed]);

    assert!(
        site.see_all("A", &[Answered, Answered, Answered])
            .is_empty()
    );
    assert_eq!(site.see_all("A", &[CheckPassed, CheckPassed]), [true]);
}

#[test]
fn the_first_recovery_waits_for_nothing() {
    let mut site = Site::new(&["A"], 0);
    site.see_all("A", &[Refused, Refused, Refused]);

    assert_eq!(site.see_all("A", &[CheckPassed, CheckPassed]), [true]);
}

#[test]
fn a_flapping_server_comes_up_at_most_once_in_ten_seconds_and_ever_more_rarely() {
    let mut site = Site::new(&["A"], 0);
    let mut ups = Vec::new();

    for step in 0..2_000 {
        let observation = if step % 4 < 2 { Refused } else { CheckPassed };
        site.now += SECOND / 4;
        for _ in 0..3 {
            let flip = site.table.observe(&name("A"), observation, site.now);
            ups.extend(flip.filter(|flip| flip.is_up).map(|_| site.now));
        }
    }

    let gaps: Vec<u64> = ups
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs())
        .collect();
    assert!(gaps.iter().all(|gap| *gap >= 10), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap >= 80), "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= 90), "{gaps:?}");
}

#[test]
fn a_server_that_stood_long_enough_is_forgiven() {
    let mut site = Site::new(&["A"], 0);
    for _ in 0..200 {
        site.see_all("A", &[Refused, Refused, Refused, CheckPassed, CheckPassed]);
    }
    site.see_all("A", &[CheckPassed; 100]);
    site.now += 600 * SECOND;

    site.see_all("A", &[Refused, Refused, Refused]);
    assert_eq!(site.see_all("A", &[CheckPassed, CheckPassed]), [true]);
    site.see_all("A", &[Refused, Refused, Refused]);
    assert_eq!(site.see_all("A", &[CheckPassed; 20]), [true]);
}

#[test]
fn when_too_much_is_down_everybody_is_eligible_and_the_change_is_told() {
    let mut site = Site::new(&["A", "B", "C"], 50);
    let down = [Refused, Refused];

    site.see_all("A", &down);
    assert_eq!(site.see("A", Refused).unwrap().panic, None);
    assert!(!site.table.view().is_eligible(&name("A")));
    site.see_all("B", &down);
    assert_eq!(site.see("B", Refused).unwrap().panic, Some(true));

    let view = site.table.view();
    assert!(view.panics());
    assert!(view.is_eligible(&name("A")) && !view.is_up(&name("A")));
    site.see("B", CheckPassed);
    assert_eq!(site.see("B", CheckPassed).unwrap().panic, Some(false));
    assert!(!site.table.view().is_eligible(&name("A")));
}

#[test]
fn the_panic_reckoning_goes_by_weight() {
    let now = start();
    let settings = HealthSettings {
        panic_threshold: 50,
        fall: 1,
        ..settings()
    };
    let servers = [(name("A"), 80), (name("B"), 10), (name("C"), 10)];
    let mut table = HealthTable::new(&settings, servers, now);

    table.observe(&name("B"), Refused, now);
    table.observe(&name("C"), Refused, now);
    assert!(!table.view().panics());
    table.observe(&name("A"), Refused, now);
    assert!(table.view().panics());
}

#[test]
fn weights_of_zero_and_no_servers_cause_no_panic() {
    let now = start();
    let settings = HealthSettings {
        panic_threshold: 100,
        fall: 1,
        ..settings()
    };
    let mut table = HealthTable::new(&settings, [(name("A"), 0)], now);
    table.observe(&name("A"), Refused, now);

    assert!(!table.view().panics());
    assert!(!HealthTable::new(&settings, [], now).view().panics());
}

#[test]
fn servers_that_remain_keep_their_state_and_new_ones_begin_up() {
    let mut site = Site::new(&["A", "B"], 0);
    site.see_all("A", &[Refused, Refused, Refused]);
    site.see_all("B", &[Refused, Refused]);

    let servers = [(name("A"), 1), (name("B"), 1), (name("N"), 1)];
    site.table.reconfigure(&settings(), servers, site.now);

    let view = site.table.view();
    assert!(!view.is_up(&name("A")) && view.is_up(&name("N")));
    assert_eq!(site.see_all("B", &[Refused]), [false]);
}

#[test]
fn servers_that_left_are_forgotten() {
    let mut site = Site::new(&["A", "B"], 100);
    site.see_all("A", &[Refused, Refused, Refused]);
    assert!(site.table.view().panics());

    let settings = HealthSettings {
        panic_threshold: 100,
        ..settings()
    };
    site.table
        .reconfigure(&settings, [(name("B"), 1)], site.now);

    let view = site.table.view();
    assert_eq!(view.iter().count(), 1);
    assert!(!view.panics());
    assert!(view.is_eligible(&name("A")));
}
