//! The data behind the page, and who does not get it.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{Events, connect, get, request, start, until};
use crate::process::{BOUND, names, wait_for_end};
use crate::program::{program, run_to_end};

/// What the page allows itself to look on with at a time.
const MAX_LOOKERS_ON: usize = 32;
const HOSTILE_NAME: &str = "<img/src=x/onerror=hacked()>";
const HOSTILE_META: &str = "</script><script>hacked()</script>\r\ndata: \"forged\"";

fn member<'a>(state: &'a Value, name: &str) -> &'a Value {
    let members = state["members"].as_array().unwrap();
    members.iter().find(|member| member["name"] == name).unwrap_or_else(|| panic!("{state}"))
}

#[test]
fn the_state_tells_of_members_health_and_counts() {
    let (a, http) = start("a", &["--meta", "zone=1", "--label", "blue"]);
    let (mut b, _) = start("b", &["--label", "blue", "--join", &a.addr]);
    b.event("joined");
    let answer = until(&http, "/state.json", "the round trip to b", |answer| {
        let state = answer.json();
        state["members"].as_array().unwrap().iter().any(|member| member["rtt_ms"].is_f64())
    });
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let state = answer.json();
    assert_eq!(names(&state["members"]), ["a", "b"]);
    let about = &state["node"];
    assert_eq!((&about["name"], &about["cluster"]), (&"a".into(), &"blue".into()));
    assert_eq!((&about["addr"], &about["transport"]), (&a.addr.as_str().into(), &"net".into()));
    let own = member(&state, "a");
    assert_eq!(
        (&own["own"], &own["meta"], &own["state"]),
        (&true.into(), &"zone=1".into(), &"alive".into())
    );
    assert!(own["rtt_ms"].is_null(), "{own}");
    let other = member(&state, "b");
    assert_eq!((&other["own"], &other["addr"]), (&false.into(), &b.addr.as_str().into()));
    assert!(
        other["rtt_ms"].as_f64().unwrap() > 0.0 && other["since_seconds"].as_f64().unwrap() > 0.0
    );
    assert!(other["incarnation"].is_u64(), "{other}");
    let stats = &state["stats"];
    assert_eq!(stats["members"]["alive"], 2, "{stats}");
    assert_eq!(stats["rtt_ms"][0][0], "b", "{stats}");
    assert!(stats["health"]["text"].as_str().unwrap().contains("health score"), "{stats}");
    for count in ["packets", "bytes"] {
        assert!(stats[count]["sent"].as_u64().unwrap() > 0, "{stats}");
        assert!(stats[count]["received"].as_u64().unwrap() > 0, "{stats}");
    }

    let why = get(&http, "/explain/b");
    assert_eq!(why.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(
        why.status == 200 && why.body.contains("b at ") && why.body.contains("has been alive for")
    );
    assert_eq!(get(&http, "/explain/nobody").status, 404);
}

#[test]
fn a_stream_has_a_snapshot_and_then_what_changes() {
    let (a, http) = start("a", &[]);
    let mut events = Events::open(&http).unwrap();
    let (kind, snapshot) = events.next().unwrap();
    assert_eq!((kind.as_str(), names(&snapshot["members"])), ("snapshot", vec!["a".to_owned()]));
    assert_eq!((&snapshot["node"]["name"], &snapshot["missed"]), (&"a".into(), &0.into()));
    let stats = |kind: &str, _: &Value| kind == "stats";
    let first = events.wait("stats", stats);
    let second = events.wait("stats again", stats);
    assert!(first["at_seconds"].as_f64() < second["at_seconds"].as_f64());

    let (b, _) = start("b", &["--meta", HOSTILE_META, "--join", &a.addr]);
    let change = |event: &'static str| {
        move |kind: &str, data: &Value| {
            kind == "change" && data["event"] == event && data["name"] == "b"
        }
    };
    let join = events.wait("that b is here", change("join"));
    assert_eq!((&join["state"], &join["meta"]), (&"alive".into(), &HOSTILE_META.into()));
    assert!(join["since_seconds"].is_f64(), "{join}");
    drop(b);
    events.wait("that b does not answer", change("suspect"));
    let dead = events.wait("that b is dead", change("dead"));
    assert!(dead["reason"].as_str().unwrap().starts_with("declared dead by"), "{dead}");
    let stats = events
        .wait("that it is counted", |kind, data| kind == "stats" && data["members"]["dead"] == 1);
    assert_eq!(stats["members"]["alive"], 1);
}

#[test]
fn so_many_look_on_and_no_more() {
    let (_a, http) = start("a", &[]);
    let mut all: Vec<Events> = (0..MAX_LOOKERS_ON)
        .map(|_| {
            let mut events = Events::open(&http).unwrap();
            assert_eq!(events.next().unwrap().0, "snapshot");
            events
        })
        .collect();
    assert_eq!(Events::open(&http).err(), Some(503));
    assert_eq!(get(&http, "/state.json").status, 200);
    all.pop();
    let deadline = Instant::now() + BOUND;
    while Events::open(&http).is_err() {
        assert!(Instant::now() < deadline, "the place of one who went is not free again");
        std::thread::sleep(Duration::from_millis(50));
    }
    for events in &mut all {
        assert_eq!(events.next().unwrap().0, "stats");
    }
}

#[test]
fn one_that_is_too_slow_is_told_everything_again_and_holds_up_nobody() {
    let (mut a, http) = start("a", &[]);
    let mut slow = Events::open(&http).unwrap();
    assert_eq!(slow.next().unwrap().0, "snapshot");
    // More than the agent keeps for it, and than most kernels take.
    const ROUNDS: u64 = 20_000;
    let padding = "x".repeat(480);
    for round in 0..ROUNDS {
        a.say(&format!("meta {round} {padding}"));
    }
    a.say("meta last");
    a.wait("that it has the last meta", |line| line["event"] == "meta" && line["meta"] == "last");
    let mut quick = Events::open(&http).unwrap();
    assert_eq!(member(&quick.next().unwrap().1, "a")["meta"], "last");

    // Everything, or how much is missing; how much the kernel takes is not known.
    let (mut told, mut missed) = (0, 0);
    loop {
        let (kind, data) = slow.next().unwrap();
        let meta = match kind.as_str() {
            "snapshot" => {
                missed += data["missed"].as_u64().unwrap();
                &member(&data, "a")["meta"]
            }
            _ => {
                told += u64::from(data["event"] == "update");
                &data["meta"]
            }
        };
        if meta == "last" {
            break;
        }
    }
    assert!(missed > 0 || told == ROUNDS + 1, "{told} told, {missed} missed");
}

#[test]
fn what_peers_say_of_themselves_stays_data() {
    let (a, http) = start("a", &[]);
    let (mut hostile, _) = start(HOSTILE_NAME, &["--meta", HOSTILE_META, "--join", &a.addr]);
    hostile.event("joined");
    let state = until(&http, "/state.json", "the other", |answer| {
        answer.json()["members"].as_array().unwrap().len() == 2
    });
    assert_eq!(member(&state.json(), HOSTILE_NAME)["meta"], HOSTILE_META);
    assert_eq!(state.header("x-content-type-options"), Some("nosniff"));
    let encoded: String = HOSTILE_NAME.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let why = get(&http, &format!("/explain/{encoded}"));
    assert_eq!(why.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(why.header("x-content-type-options"), Some("nosniff"));
    assert!(why.body.starts_with(HOSTILE_NAME), "{why:?}");

    let page = get(&http, "/");
    assert!(!page.body.contains("hacked"), "the page itself has nothing of them");
    assert!(!page.body.contains("innerHTML") && !page.body.contains("src="), "no assets");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(policy.contains("require-trusted-types-for 'script'"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
}

#[test]
fn requests_that_make_no_sense_are_refused_and_change_nothing() {
    let (_a, http) = start("a", &[]);
    let with_host = |host: &str| {
        format!("GET /state.json HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    };
    let long = format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(1 << 20));
    let cases: [(&str, u16); 13] = [
        ("POST / HTTP/1.0\r\n\r\n", 405),
        ("PUT /state.json HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", 405),
        ("DELETE /explain/a HTTP/1.0\r\n\r\n", 405),
        ("GET /nothing HTTP/1.0\r\n\r\n", 404),
        ("GET /explain/ HTTP/1.0\r\n\r\n", 404),
        ("GET /explain/%FF HTTP/1.0\r\n\r\n", 400),
        ("GET /../state.json HTTP/1.0\r\n\r\n", 404),
        ("no request\r\n\r\n", 400),
        (&with_host("evil.example"), 403),
        (&with_host("a b"), 403),
        (&with_host("LOCALHOST:1"), 200),
        (&with_host("[::1]:80"), 200),
        (&with_host(&http), 200),
    ];
    for (text, status) in cases {
        let answer = request(&http, text);
        assert_eq!(answer.status, status, "{text:?}: {answer:?}");
    }
    let mut stream = connect(&http);
    // It may hang up before it has everything.
    let _ = stream.write_all(long.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(names(&get(&http, "/state.json").json()["members"]), ["a"]);
}

#[test]
fn the_end_does_not_wait_for_those_who_look_on() {
    let (mut a, http) = start("a", &[]);
    let mut events: Vec<Events> = (0..3).map(|_| Events::open(&http).unwrap()).collect();
    for one in &mut events {
        assert_eq!(one.next().unwrap().0, "snapshot");
    }
    // One that never says what it wants, and one that stopped in the middle of it.
    let silent = connect(&http);
    let mut slow = connect(&http);
    slow.write_all(b"GET / HT").unwrap();
    a.say("quit");
    for mut one in events {
        while one.next().is_some() {}
    }
    let (status, said) = a.end();
    assert_eq!(status.code(), Some(0));
    assert_eq!(said.last().unwrap()["event"], "stopped");
    drop((silent, slow));
}

#[test]
fn where_the_page_is_is_told_in_text_too() {
    let mut child = Command::new(program())
        .args(["--name", "a", "--bind", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"quit\n").unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(wait_for_end(&mut child).code(), Some(0));
    let ready = text.lines().next().unwrap();
    let (_, at) = ready.split_once("  http ").unwrap_or_else(|| panic!("{ready}"));
    assert_ne!(at.parse::<std::net::SocketAddr>().unwrap().port(), 0);

    let help = String::from_utf8(run_to_end(&["--help"]).stdout).unwrap();
    assert!(help.contains("--http") && help.contains("NO AUTHENTICATION"), "{help}");
}

#[test]
fn an_address_that_is_taken_ends_it_with_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let output = run_to_end(&["--name", "a", "--bind", "127.0.0.1:0", "--http", &at]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.contains("--http") && told.contains(&at), "{told}");
    assert!(output.stdout.is_empty());
}
