//! One server as a processor of another, over a link that can be cut. Whatever becomes of the link, every request ends once and every
//! answer is right.

use crate::apps::keyword_app;
use crate::http::{body, infer, send};
use crate::plans::quick_plan;
use crate::rig::{PATIENCE, Rig, Way, difference, inputs, options, reference};
use cosched::env::plan::Plan;
use cosched::experiments::app::App;
use cosched::server::model::serving;
use cosched::server::{Options, Server, Setup};
use cosched::session::{Session, SessionOptions};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Carries bytes between a port of its own and another one, until it is cut.
struct Link {
    address: SocketAddr,
    to: SocketAddr,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    open: Arc<AtomicBool>,
}

impl Link {
    fn to(to: SocketAddr) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let link = Link { address, to, streams: Arc::default(), open: Arc::default() };
        link.listen(listener);
        link
    }

    fn listen(&self, listener: TcpListener) {
        self.open.store(true, Ordering::SeqCst);
        let (to, streams, open) = (self.to, self.streams.clone(), self.open.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut all = streams.lock().unwrap();
                if !open.load(Ordering::SeqCst) {
                    return;
                }
                let there = TcpStream::connect(to).unwrap();
                for (mut from, mut into) in [(&stream, &there), (&there, &stream)]
                    .map(|(a, b)| (a.try_clone().unwrap(), b.try_clone().unwrap()))
                {
                    std::thread::spawn(move || {
                        let mut buffer = [0; 4096];
                        while let Ok(n @ 1..) = from.read(&mut buffer) {
                            if into.write_all(&buffer[..n]).is_err() {
                                break;
                            }
                        }
                        let _ = into.shutdown(Shutdown::Both);
                    });
                }
                all.extend([stream, there]);
            }
        });
    }

    /// Every connection ends in the middle, and no new one is taken.
    fn cut(&self) {
        self.open.store(false, Ordering::SeqCst);
        // Wakes the listener up, which then goes away.
        drop(TcpStream::connect(self.address));
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        let begun = Instant::now();
        loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => return self.listen(listener),
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// An app with the cpu and `edge`, whose variants have the names of those there, or of a task's variants there.
fn app(url: &str, more: &str) -> App {
    let head = format!(
        r#"name = "near"
processors = ["cpu", "edge"]
[segments]
max = 2
min_share = 0.1
[[remote]]
name = "edge"
url = "{url}"
{more}
"#
    );
    let text = keyword_app(&head, "period_ms = 10\ndeadline_ms = 30000\n");
    serving(App::parse(&text, "near.toml".as_ref()).unwrap())
}

/// The plan, in which the cpu is a thousand times as slow as it is: whoever can asks the other server.
fn plan(session: &Session) -> Plan {
    let mut plan = quick_plan(&session.deployment);
    for cost in plan.variants.iter_mut().flat_map(|v| &mut v.segments).filter_map(|s| s.costs[0].as_mut()) {
        cost.mean_us *= 1e3;
        cost.p50_us *= 1e3;
        cost.p95_us *= 1e3;
    }
    plan
}

/// A server that has another one for a processor.
struct Near {
    server: Option<Server>,
    http: SocketAddr,
}

impl Near {
    fn new(app: &App) -> Near {
        let session = Session::open(app, &SessionOptions::default(), &mut |_, _, _| {}).unwrap();
        assert!(session.absent.is_empty(), "{:?}", session.absent);
        let case = app.case_of(plan(&session)).unwrap();
        let deployment = session.deployment.clone();
        let setup = Setup { deployment, case, scheduler: app.scheduler, policy: "edf".into(), online: None };
        let server = Server::start(&setup, None, &Options { ..options() }).unwrap();
        Near { http: server.http(), server: Some(server) }
    }

    fn until(&self, what: &str, mut true_now: impl FnMut(&Server) -> bool) {
        let begun = Instant::now();
        while !true_now(self.server.as_ref().unwrap()) {
            assert!(begun.elapsed() < PATIENCE, "never: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks once; where it was answered. The answer is right.
    fn ask(&self, seed: u64) -> String {
        let answer = infer(self.http, "keyword", &inputs(seed), json!({}));
        assert_eq!(answer.status, 200, "{}", answer.error());
        let off = difference(&answer.outputs()[0].1, &reference("kws_small", &inputs(seed)));
        assert!(off < 1e-4, "request {seed} is off by {off}");
        let told = &answer.json()["parameters"];
        let on = told["processors"].as_str().unwrap().to_owned();
        let variant = if on == "edge" { "kws_small@edge" } else { "kws_small" };
        assert_eq!(told["variant"], variant);
        on
    }

    fn up(&self) -> bool {
        self.server.as_ref().unwrap().core().stats.read().processors[1].up
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        self.server.take().into_iter().for_each(Server::shutdown);
    }
}

#[test]
fn a_link_that_is_cut_loses_nothing_and_comes_back() {
    let far = Rig::new("edf");
    let link = Link::to(far.http);
    let near = Near::new(&app(&format!("http://{}", link.address), ""));
    assert_eq!(near.ask(1), "edge");
    // Held there, with others waiting here; then the cable is pulled.
    far.gate.set(Way::Closed);
    let asked = 8;
    let answered: Vec<String> = std::thread::scope(|scope| {
        let near = &near;
        let asking: Vec<_> = (0..asked).map(|seed| scope.spawn(move || near.ask(seed))).collect();
        far.gate.holds(1);
        near.until("all have come", |s| {
            let of = &s.core().stats.read().models[0];
            of.pending + of.success.count == asked + 1
        });
        link.cut();
        asking.into_iter().map(|a| a.join().unwrap()).collect()
    });
    assert_eq!(answered, vec!["cpu"; asked as usize]);
    assert!(!near.up(), "a link that is cut is no processor");
    let counted = near.server.as_ref().unwrap().core().stats.read();
    let of = &counted.models[0];
    assert_eq!(
        (of.success.count, of.failures.len(), of.pending),
        (asked + 1, 0, 0),
        "every request ends once"
    );
    assert_eq!((counted.processors[1].good, counted.processors[1].failed), (1, 1));
    assert_eq!(near.ask(3), "cpu");
    // The server there takes back what nobody waits for.
    far.gate.set(Way::Open);
    far.pending(0, 0);
    far.pending(1, 0);
    link.mend();
    near.until("it is taken back", |_| near.up());
    near.until("it is asked again", |_| near.ask(4) == "edge");
}

#[test]
fn a_caller_that_goes_away_takes_its_request_along_there_too() {
    let far = Rig::new("edf");
    let near = Near::new(&app(&format!("http://{}", far.http), ""));
    far.gate.set(Way::Closed);
    let path = "/v2/models/keyword/infer";
    let gone = send(near.http, "POST", path, &[], &body(&inputs(1), json!({"variant": "kws_small@edge"})));
    far.gate.holds(1);
    drop(gone);
    // Nothing there is let go, and yet both servers are done with it.
    far.until("it is canceled there", |_| far.failures(0, "CANCELED") == 1);
    near.until("it is canceled here", |s| {
        s.core().stats.read().models[0].failures.get("CANCELED").is_some_and(|t| t.count == 1)
    });
    assert!(near.up(), "a caller that goes away is no broken link");
    far.gate.set(Way::Open);
    assert_eq!(near.ask(2), "edge");
}

#[test]
fn what_the_server_refuses_fails_with_its_words() {
    let far = Rig::new("edf");
    let near = Near::new(&app(&format!("http://{}", far.http), ""));
    far.gate.set(Way::Broken);
    let answer = infer(near.http, "keyword", &inputs(1), json!({"variant": "kws_small@edge"}));
    assert_eq!(answer.status, 500);
    let words = answer.error();
    assert!(
        words.contains("`edge` failed")
            && words.contains("status 500")
            && words.contains("broken on purpose"),
        "{words}"
    );
    assert!(near.up(), "it is there, it only refuses");
    far.gate.set(Way::Open);
    near.until("it is asked again", |_| near.ask(1) == "edge");
}

#[test]
fn models_are_found_by_name_and_wrong_ones_are_not_offloaded() {
    let far = Rig::new("edf");
    let url = format!("http://{}", far.http);
    let variants = |app: &App| -> Vec<String> {
        let session = Session::open(app, &SessionOptions::default(), &mut |_, _, _| {}).unwrap();
        session.deployment.variants.iter().map(|v| v.model.name.clone()).collect()
    };
    let offloaded = ["kws_small", "kws_small@edge"];
    // As a variant of a model with its task's name; as the file says; and not at all.
    assert_eq!(variants(&app(&url, "")), offloaded);
    assert_eq!(variants(&app(&url, "models = { kws_small = \"plain\" }")), offloaded);
    assert_eq!(variants(&app(&url, "models = { kws_small = \"keyword:kws_small\" }")), offloaded);
    assert_eq!(variants(&app(&url, "models = { kws_small = \"nothing\" }")), ["kws_small"]);
    // A server that is not there is told as any processor that is absent.
    let gone = app("http://127.0.0.1:1", "");
    let session = Session::open(&gone, &SessionOptions::default(), &mut |_, _, _| {}).unwrap();
    assert!(matches!(session.absent.as_slice(), [(name, why)] if name == "edge" && why.contains("connect")));
    let text = "name = \"x\"\n[[remote]]\nurl = \"ftp://x\"\n";
    let error = App::parse(text, "x.toml".as_ref()).unwrap_err().to_string();
    assert!(error.contains("x.toml") && error.contains("expected http://HOST:PORT"), "{error}");
}

#[test]
fn the_link_may_be_inside_tls() {
    let far = Rig::with("edf", &Options { tls: Some(crate::tls::files()), ..options() });
    let trusted = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/serve/tls/certificate.pem");
    let near = Near::new(&app(
        &format!("https://localhost:{}", far.http.port()),
        &format!("trusted = \"{trusted}\""),
    ));
    assert_eq!(near.ask(1), "edge");
    assert!(far.server().core().stats.read().models[0].success.count > 0);
}
