use dnscrub_detection::incident::{Spoofed, What};
use dnscrub_testkit::incident::{HOSTILE, crowd, flood};

use super::account::{self, Mitigated, mitigated};
use super::{html, markdown};
use crate::legible::visible;
use crate::report::markup::assert_well_formed;

/// 2026-11-25 23:31:44 UTC.
const BEGAN: f64 = 1_795_649_504.0;

#[test]
fn a_flood_that_is_over() {
    insta::assert_snapshot!(markdown::text(&account::of(&flood(7, BEGAN, Some(240)))));
}

#[test]
fn a_flash_crowd_without_points() {
    insta::assert_snapshot!(markdown::text(&account::of(&crowd(1, BEGAN))));
}

#[test]
fn the_page_is_well_formed_and_self_contained() {
    for incident in [
        flood(7, BEGAN, Some(240)),
        flood(8, BEGAN, None),
        crowd(1, BEGAN),
    ] {
        let page = html::page(&account::of(&incident));
        assert!(assert_well_formed(&page) > 60);
        for outside in ["http", "url(", "src=", "<script", "javascript"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
    let page = html::page(&account::of(&flood(7, BEGAN, Some(240))));
    for told in [
        "Incident 7: random-subdomain flood on example.com",
        "&lt;script&gt;alert(1)&lt;/script&gt;\\u{1b}[31m",
        "<path class=\"lost\"",
        "<path class=\"moment\"",
        "prefers-color-scheme: dark",
        "@media print",
        "after 4 s",
    ] {
        assert!(page.contains(told), "{told}");
    }
}

#[test]
fn hostile_text_is_no_markup() {
    let written = markdown::text(&account::of(&flood(7, BEGAN, Some(240))));
    for (at, _) in written.match_indices("script>alert") {
        let before = &written[..at];
        let line = before.rsplit('\n').next().unwrap();
        assert!(
            line.ends_with("&lt;") || line.matches("``").count() % 2 == 1,
            "outside of a code span: {line}"
        );
    }
    assert!(!written.contains('\u{1b}') && !written.contains('\u{202e}'));
    assert_eq!(
        markdown::escape("<b>*_`[x](y)|#"),
        "&lt;b&gt;\\*\\_\\`\\[x\\](y)\\|\\#"
    );
    assert_eq!(
        markdown::escape("http://evil.example www.evil.example a@b"),
        "http\\://evil.example www\\.evil.example a\\@b"
    );
    assert_eq!(markdown::escape("- no list"), "\\- no list");
    assert_eq!(visible("a\nb\u{202e}c\u{1b}"), "a\\u{a}b\\u{202e}c\\u{1b}");
    // rows of a table stay rows: an unescaped bar would add a cell
    let rows = written.lines().filter(|line| line.starts_with("| 23:"));
    for row in rows {
        let bars = row.replace("\\|", "").matches('|').count();
        assert_eq!(bars, 5, "{row}");
    }
    assert!(HOSTILE.contains('|'), "the name tries it");
}

#[test]
fn it_is_mitigated_once_known_clients_are_well_for_good() {
    let over = flood(7, BEGAN, Some(240));
    assert_eq!(mitigated(&over), Mitigated::At(BEGAN + 9.0));
    assert_eq!(mitigated(&crowd(1, BEGAN)), Mitigated::Unknown);
    let mut unharmed = over.clone();
    for point in &mut unharmed.points {
        point.known_lost = 0.0;
    }
    assert_eq!(mitigated(&unharmed), Mitigated::Never);
    let mut again = flood(8, BEGAN, None);
    again.points[200].known_lost = again.points[200].known / 2.0;
    assert_eq!(mitigated(&again), Mitigated::At(again.points[201].at));
    let last = again.points.last_mut().unwrap();
    last.known_lost = last.known / 2.0;
    assert_eq!(mitigated(&again), Mitigated::NotYet);
    // what was lost before is not this incident's
    let mut before = unharmed;
    before.points[10].known_lost = 500.0;
    assert_eq!(mitigated(&before), Mitigated::Never);
}

#[test]
fn what_is_open_follows_from_the_record() {
    let told = |incident| {
        let written = markdown::text(&account::of(&incident));
        let (_, open) = written.split_once("## What is open\n").unwrap();
        open.to_owned()
    };
    let over = flood(7, BEGAN, Some(240));
    let open = told(over.clone());
    assert!(open.contains("Still in force: no. 3, by anna"), "{open}");
    assert!(open.contains("could not be told"), "{open}");
    assert!(
        open.contains("for another 5 s after it was named"),
        "{open}"
    );
    assert_eq!(open.matches("\n- ").count(), 3, "{open}");

    let mut settled = over.clone();
    settled.undo(3, BEGAN + 300.0, "Unblocked.");
    settled.timeline.retain(|entry| entry.what != What::Untold);
    settled.points.clear();
    assert_eq!(told(settled.clone()), "\nNothing.\n");

    settled.confidence = 0.4;
    settled.sources.spoofed = Spoofed::Unclear;
    settled.more_zones = 1_200;
    settled.tell(BEGAN + 9.0, What::Renamed, "Not a direct flood.");
    settled.closed = None;
    let open = told(settled);
    for thing in [
        "It is going on.",
        "only 40 % sure",
        "renamed once",
        "forged is unclear",
        "1,200 further zones",
    ] {
        assert!(open.contains(thing), "{thing}: {open}");
    }
}

#[test]
fn nonsense_in_a_record_does_not_break_the_account() {
    let mut incident = flood(7, BEGAN, Some(240));
    incident.began = f64::NAN;
    incident.opened = f64::INFINITY;
    incident.closed = Some(-1.0);
    incident.impact.asked = f64::NAN;
    incident.confidence = f32::NAN;
    incident.points[3].at = -1e300;
    incident.points[4].queries = f32::INFINITY;
    incident.points[5].forwarded = f32::NAN;
    let account = account::of(&incident);
    assert!(markdown::text(&account).contains("# Incident 7"));
    assert_well_formed(&html::page(&account));
}
