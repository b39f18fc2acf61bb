//! The page, in a real browser.

use std::io::Write;

use crate::devtools::{Browser, browser};
use crate::http::start;

const HOSTILE_NAME: &str = "<img/src=x/onerror=window.hacked=1>";
const HOSTILE_META: &str = "<script>window.hacked=1</script>";

/// The row of a member, as an expression.
fn row(name: &str) -> String {
    let rows = "[...document.querySelectorAll('#members tr.member')]";
    format!("{rows}.find((row) => row.dataset.name === {name:?})")
}

/// Whether a member is shown in that state.
fn is(name: &str, state: &str) -> String {
    format!("{}.querySelector('td.state').innerText.includes({state:?})", row(name))
}

/// Whether one of the events says that.
fn told(text: &str) -> String {
    let events = "[...document.querySelectorAll('#events li')]";
    format!("{events}.some((item) => item.innerText.includes({text:?}))")
}

/// How many points a line of a plot has.
fn points(line: &str) -> String {
    format!("(document.getElementById({line:?}).getAttribute('points') ?? '').split(' ').length")
}

#[test]
#[ignore = "needs Chromium: cargo test -p memberlist-tests --test observability -- --ignored"]
fn the_page_of_a_running_agent_shows_what_happens() {
    let Some(program) = browser() else {
        let text = "NOT RUN: neither chromium nor chromium-browser is here";
        writeln!(std::io::stderr(), "{text}").unwrap();
        return;
    };
    let (a, http) = start("a", &["--label", "blue", "--meta", "zone=east rack=12"]);
    let flags = ["--label", "blue", "--join", &a.addr];
    let (mut b, _) = start("b", &[&flags[..], &["--meta", "zone=west rack=3"]].concat());
    b.event("joined");
    let mut page = Browser::start(program);
    page.open(&format!("http://{http}/"));
    members_are_shown_and_explained(&mut page);
    plots_go_on(&mut page);

    let (hostile, _) = start(HOSTILE_NAME, &[&flags[..], &["--meta", HOSTILE_META]].concat());
    names_are_shown_as_they_are(&mut page);
    page.look("desktop-light", (1280, 1200), "light");

    drop(b);
    a_death_is_told(&mut page);
    page.look("desktop-dark", (1280, 1200), "dark");
    page.look("phone-light", (390, 2200), "light");
    page.look("phone-dark", (390, 1400), "dark");

    drop((a, hostile));
    page.until("that the agent is gone", "document.getElementById('link').className === 'lost'");
    // A connection that is lost is no error of the page.
    page.errors.retain(|error| !error.contains("net::ERR_"));
    assert_eq!(page.errors, [""; 0]);
}

fn members_are_shown_and_explained(page: &mut Browser) {
    page.until("the node's name", "document.querySelector('h1').innerText === 'a'");
    for name in ["a", "b"] {
        page.until(&format!("{name} alive"), &is(name, "alive"));
    }
    page.until("the round trip", &format!("/\\d ms$/.test({}.cells[4].innerText)", row("b")));
    assert_eq!(page.eval(&format!("{}.cells[6].innerText", row("b"))), "zone=west rack=3");

    page.click(&row("b"));
    let why = "document.querySelector('tr.why .words').innerText";
    page.until("why b is alive", &format!("{why}.includes('b at 127.0.0.1')"));
    let expanded = format!("{}.querySelector('button').getAttribute('aria-expanded')", row("b"));
    assert_eq!(page.eval(&expanded), "true");
}

fn plots_go_on(page: &mut Browser) {
    for line in ["packets-sent", "bytes-received", "drops-drops"] {
        let before = page.eval(&points(line)).as_u64().unwrap();
        page.until("that a plot goes on", &format!("{} > {}", points(line), before + 1));
    }
}

/// Names and meta make no elements, and run nothing.
fn names_are_shown_as_they_are(page: &mut Browser) {
    page.until("the hostile one", &is(HOSTILE_NAME, "alive"));
    page.until("that it came", &told(&format!("join {HOSTILE_NAME}")));
    let shown = page.eval(&format!("{}.innerText", row(HOSTILE_NAME)));
    let shown = shown.as_str().unwrap();
    assert!(shown.contains(HOSTILE_NAME) && shown.contains(HOSTILE_META), "{shown}");
    let made = "document.querySelectorAll('main img, main script, main style').length";
    assert_eq!(page.eval(made), 0);
    assert!(page.eval("window.hacked").is_null());
    // Nor could the page do it if it tried.
    let tried = "try { document.body.innerHTML = '<b>'; 'done' } catch { 'refused' }";
    assert_eq!(page.eval(tried), "refused");
    page.errors.retain(|error| !error.contains("TrustedHTML"));
}

fn a_death_is_told(page: &mut Browser) {
    page.until("b suspected", &told("suspect b"));
    page.until("b dead", &is("b", "dead"));
    page.until("the event", &told("dead b"));
    let why = "document.querySelector('tr.why .words').innerText";
    page.until("the death in the explanation", &format!("{why}.includes('has been dead for')"));
    page.until("one dead in the count", "document.getElementById('count-dead').innerText === '1'");
}
