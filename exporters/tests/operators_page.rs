//! docs/delivery.md quotes what the breakers and discovery say; here it is held to that.

use std::path::Path;
use std::time::Duration;

use forebay_exporters::breaker::{Cause, Transition};
use forebay_exporters::discovery::event::Cost;

#[test]
fn the_operators_page_quotes_each_cause_and_each_change_as_the_log_has_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let page = std::fs::read_to_string(folder.join("docs/delivery.md")).expect("the page");
    let causes = [
        Cause::FailuresInARow { failures: 5 },
        Cause::FailureRate { failures: 12, calls: 24 },
        Cause::SlowCallRate { slow: 15, calls: 30 },
        Cause::ProbeFailed,
        Cause::ProbeTurnedAway,
    ];
    for cause in causes {
        // With a new cause this does not compile until somebody has thought of the page.
        match cause {
            Cause::FailuresInARow { .. }
            | Cause::FailureRate { .. }
            | Cause::SlowCallRate { .. }
            | Cause::ProbeFailed
            | Cause::ProbeTurnedAway => {}
        }
        assert!(page.contains(&format!("| `{cause}` |")), "{cause} is not explained");
    }
    for change in [Transition::HalfOpened, Transition::Closed { successes: 3 }] {
        assert!(page.contains(&format!("\ninfo  {change}\n")), "{change} is not quoted");
    }
    let costs = [Cost::LastGood { endpoints: 3, age: Duration::from_secs(40) }, Cost::NoEndpoints];
    for cost in costs {
        assert!(page.contains(&format!("cost `{cost}`")), "{cost} is not explained");
    }
}
