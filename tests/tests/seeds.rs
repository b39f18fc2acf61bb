//! Nodes that look for their cluster by themselves, and names that are looked up by DNS.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Header, Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use memberlist::memory::{MemoryNetwork, MemoryTransport};
use memberlist::net::NetTransport;
use memberlist::{Builder, Config, JoinError, Memberlist, NodeState};
use memberlist_tests::cluster::own_loopback;
use memberlist_tests::{Cluster, agree, quick, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

type Records = BTreeMap<(String, RecordType), Vec<RData>>;

/// A name server of the test's own. What is longer than a packet it gives over TCP only.
#[derive(Clone)]
struct NameServer {
    addr: SocketAddr,
    records: Arc<Mutex<Records>>,
    /// Questions over UDP and TCP.
    asked: Arc<Mutex<(usize, usize)>>,
}

impl NameServer {
    async fn start() -> Self {
        let udp = UdpSocket::bind((own_loopback(), 0)).await.unwrap();
        let addr = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(addr).await.unwrap();
        let server = Self { addr, records: Arc::default(), asked: Arc::default() };
        tokio::spawn(server.clone().serve_udp(udp));
        tokio::spawn(server.clone().serve_tcp(tcp));
        server
    }

    fn set(&self, name: &str, kind: RecordType, data: Vec<RData>) {
        self.records.lock().unwrap().insert((format!("{name}."), kind), data);
    }

    fn set_ips(&self, name: &str, ips: impl IntoIterator<Item = IpAddr>) {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for ip in ips {
            match ip {
                IpAddr::V4(ip) => v4.push(RData::A(A(ip))),
                IpAddr::V6(ip) => v6.push(RData::AAAA(AAAA(ip))),
            }
        }
        self.set(name, RecordType::A, v4);
        self.set(name, RecordType::AAAA, v6);
    }

    fn asked(&self) -> (usize, usize) {
        *self.asked.lock().unwrap()
    }

    fn answer(&self, question: &[u8], limit: usize) -> Vec<u8> {
        let question = Message::from_vec(question).unwrap();
        let query = question.queries()[0].clone();
        let key = (query.name().to_lowercase().to_utf8(), query.query_type());
        let found = self.records.lock().unwrap().get(&key).cloned();
        let mut header = Header::response_from_request(question.header());
        header.set_message_type(MessageType::Response);
        header.set_authoritative(true);
        if found.is_none() {
            header.set_response_code(ResponseCode::NXDomain);
        }
        let mut answer = Message::new();
        answer.set_header(header).add_query(query.clone());
        for data in found.into_iter().flatten() {
            answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
        }
        let bytes = answer.to_vec().unwrap();
        if bytes.len() <= limit {
            return bytes;
        }
        let mut cut = Message::new();
        cut.set_header(*header.set_truncated(true)).add_query(query);
        cut.to_vec().unwrap()
    }

    async fn serve_udp(self, socket: UdpSocket) {
        let mut buf = [0; 4096];
        while let Ok((len, from)) = socket.recv_from(&mut buf).await {
            self.asked.lock().unwrap().0 += 1;
            let answer = self.answer(&buf[..len], 512);
            socket.send_to(&answer, from).await.unwrap();
        }
    }

    async fn serve_tcp(self, listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let server = self.clone();
            tokio::spawn(async move {
                while let Ok(len) = stream.read_u16().await {
                    let mut question = vec![0; len.into()];
                    stream.read_exact(&mut question).await.unwrap();
                    server.asked.lock().unwrap().1 += 1;
                    let answer = server.answer(&question, 65_535);
                    stream.write_u16(answer.len() as u16).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
            });
        }
    }
}

/// A node over UDP and TCP that asks this server.
async fn asking(
    name: &str,
    server: &NameServer,
    change: impl FnOnce(&mut Config),
) -> Memberlist<NetTransport> {
    let mut config = quick(name);
    config.dns.servers = vec![server.addr];
    change(&mut config);
    let transport = NetTransport::bind_addr(SocketAddr::new(own_loopback(), 0)).unwrap();
    Builder::new(config).start(transport).await.unwrap()
}

fn service(target: &str, port: u16) -> RData {
    RData::SRV(SRV::new(0, 0, port, Name::from_utf8(format!("{target}.")).unwrap()))
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    let server = NameServer::start().await;
    let seed = asking("seed", &server, |_| {}).await;
    let nowhere = [IpAddr::V4(Ipv4Addr::new(127, 255, 255, 254)), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    server.set_ips("seed.example", nowhere.into_iter().chain([seed.addr().ip()]));
    let node = asking("node", &server, |_| {}).await;
    let results = node.join([format!("seed.example:{}", seed.addr().port())]).await.unwrap();
    let mut tried: Vec<IpAddr> = results[0].attempts.iter().map(|a| a.addr.ip()).collect();
    tried.sort();
    assert_eq!(tried.len(), 3, "{results:?}");
    agree(&[&seed, &node]).await;
}

#[tokio::test]
async fn service_records_bring_their_ports_and_targets() {
    let server = NameServer::start().await;
    let seed = asking("seed", &server, |_| {}).await;
    server.set_ips("one.example", [seed.addr().ip()]);
    server.set(
        "_memberlist._udp.example",
        RecordType::SRV,
        vec![service("one.example", seed.addr().port()), service("gone.example", 7)],
    );
    let node = asking("node", &server, |_| {}).await;
    node.join(["_memberlist._udp.example"]).await.unwrap();
    agree(&[&seed, &node]).await;
}

#[tokio::test]
async fn an_answer_that_fits_no_packet_comes_over_tcp() {
    let server = NameServer::start().await;
    let seed = asking("seed", &server, |_| {}).await;
    let many = (0..200).map(|i| IpAddr::V4(Ipv4Addr::new(127, 254, 254, i)));
    server.set_ips("many.example", many.chain([seed.addr().ip()]));
    let node = asking("node", &server, |config| config.join_concurrency = 256).await;
    let results = node.join([format!("many.example:{}", seed.addr().port())]).await.unwrap();
    assert_eq!(results[0].attempts.len(), 201);
    assert!(server.asked().1 >= 1, "{:?}", server.asked());
}

#[tokio::test]
async fn a_name_that_is_not_known_and_a_server_that_is_silent_are_told_apart() {
    let server = NameServer::start().await;
    let node = asking("node", &server, |_| {}).await;
    let told = |result: Result<_, JoinError>| match result {
        Err(JoinError::NoneReached(results)) => {
            let _: &Vec<memberlist::SeedResult> = &results;
            results[0].error.as_ref().unwrap().to_string()
        }
        other => panic!("{other:?}"),
    };
    let error = told(node.join(["nobody.example"]).await);
    assert!(error.contains("nobody.example") && error.contains("not known"), "{error}");
    let silent = UdpSocket::bind((own_loopback(), 0)).await.unwrap();
    let deaf = NameServer { addr: silent.local_addr().unwrap(), ..server };
    let node = asking("other", &deaf, |c| c.dns.timeout = Duration::from_millis(300)).await;
    let error = told(node.join(["seed.example"]).await);
    assert!(error.contains("seed.example"), "{error}");
}

#[tokio::test]
async fn a_node_that_was_started_first_finds_the_cluster_when_its_name_leads_there() {
    let server = NameServer::start().await;
    let ip = own_loopback();
    let port = NetTransport::bind_addr(SocketAddr::new(ip, 0)).unwrap().local_addrs()[0].port();
    let first = asking("first", &server, |config| {
        config.seeds = vec![format!("cluster.example:{port}")];
        config.seed_retry_interval = Duration::from_secs(1);
    })
    .await;
    until("it has asked and found nothing", || server.asked().0 >= 2).await;
    assert_eq!(first.member_count(), 1);
    let transport = NetTransport::bind_addr(SocketAddr::new(ip, port)).unwrap();
    let second = Builder::new(quick("second")).start(transport).await.unwrap();
    server.set_ips("cluster.example", [ip]);
    agree(&[&first, &second]).await;
    // Who is not alone asks no more.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = server.asked();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(server.asked(), asked);
}

#[tokio::test(start_paused = true)]
async fn seeds_are_tried_while_the_node_is_alone_and_not_after_it_left_or_ended() {
    let network = MemoryNetwork::new(7);
    let at = |i: u8| SocketAddr::from(([10, 0, 0, i], 7946));
    let mut config = quick("a");
    config.seeds = vec!["10.0.0.2".to_owned(), "10.0.0.1".to_owned()];
    let a = Memberlist::start(network.bind(at(1)).unwrap(), config).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(a.member_count(), 1, "itself among the seeds is nobody");
    let b = Memberlist::start(network.bind(at(2)).unwrap(), quick("b")).await.unwrap();
    agree(&[&a, &b]).await;
    // Alone again, and again not.
    b.shutdown().await;
    until("b is dead", || a.member_count() == 1).await;
    let b = Memberlist::start(network.bind(at(2)).unwrap(), quick("b2")).await.unwrap();
    until("a has found it", || b.member_count() == 2).await;

    a.leave(Duration::from_secs(30)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(b.member_count(), 1, "who has left does not come back by itself");
    drop(a);
    until("its address is free", || network.bind(at(1)).is_ok()).await;
}

#[tokio::test]
async fn seeds_that_are_none_are_refused_at_the_start() {
    let mut config = quick("a");
    config.seeds = vec!["10.0.0.1:x".to_owned()];
    let cluster = Cluster::<MemoryTransport>::new();
    let started = Builder::new(config).start(cluster.transport().await).await;
    let error = started.err().unwrap().to_string();
    assert!(error.contains("`seeds`"), "{error}");
}

/// An address where this server answers so late, and about some names and kinds not at all.
async fn hesitant(
    server: &NameServer,
    pause: Duration,
    silent: impl Fn(&str, RecordType) -> bool + Send + 'static,
) -> NameServer {
    let udp = UdpSocket::bind((own_loopback(), 0)).await.unwrap();
    let hesitant = NameServer { addr: udp.local_addr().unwrap(), ..server.clone() };
    let server = server.clone();
    tokio::spawn(async move {
        let mut buf = [0; 4096];
        while let Ok((len, from)) = udp.recv_from(&mut buf).await {
            let query = Message::from_vec(&buf[..len]).unwrap().queries()[0].clone();
            if !silent(&query.name().to_lowercase().to_utf8(), query.query_type()) {
                tokio::time::sleep(pause).await;
                udp.send_to(&server.answer(&buf[..len], 4096), from).await.unwrap();
            }
        }
    });
    hesitant
}

#[tokio::test]
async fn who_leaves_while_a_seed_is_looked_up_stays_away() {
    let server = NameServer::start().await;
    let seed = asking("seed", &server, |_| {}).await;
    server.set_ips("one.example", [seed.addr().ip()]);
    let late = hesitant(&server, Duration::from_millis(500), |_, _| false).await;
    let node = asking("node", &late, |config| {
        config.seeds = vec![format!("one.example:{}", seed.addr().port())];
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    node.leave(Duration::from_secs(5)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(node.own().unwrap().state, NodeState::Left);
    assert_eq!(seed.member_count(), 1);
    node.join([seed.addr().to_string()]).await.unwrap();
    agree(&[&seed, &node]).await;
}

#[tokio::test]
async fn a_silent_target_of_a_service_hides_no_other() {
    let server = NameServer::start().await;
    let seed = asking("seed", &server, |_| {}).await;
    server.set_ips("one.example", [seed.addr().ip()]);
    let targets = vec![service("a.dead.example", 7), service("one.example", seed.addr().port())];
    server.set("_memberlist._udp.example", RecordType::SRV, targets);
    let dead = |name: &str, _| name.ends_with(".dead.example.");
    let partly = hesitant(&server, Duration::ZERO, dead).await;
    let node = asking("node", &partly, |c| c.dns.timeout = Duration::from_secs(2)).await;
    node.join(["_memberlist._udp.example"]).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_silent_about_ipv6_gives_the_ipv4_addresses() {
    let server = NameServer::start().await;
    let seed = asking("seed", &server, |_| {}).await;
    server.set_ips("one.example", [seed.addr().ip()]);
    let partly = hesitant(&server, Duration::ZERO, |_, kind| kind == RecordType::AAAA).await;
    let node = asking("node", &partly, |c| c.dns.timeout = Duration::from_secs(1)).await;
    node.join([format!("one.example:{}", seed.addr().port())]).await.unwrap();
}

#[tokio::test]
async fn a_seed_that_is_silent_keeps_no_node_without_handles() {
    let server = NameServer::start().await;
    let silent = TcpListener::bind((own_loopback(), 0)).await.unwrap();
    let seed = silent.local_addr().unwrap().to_string();
    let node = asking("node", &server, |config| {
        config.seeds = vec![seed];
        config.protocol.stream_timeout = Duration::from_secs(30);
    })
    .await;
    let own = node.addr();
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(node);
    let free = async {
        while std::net::UdpSocket::bind(own).is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), free).await.expect("its port is free");
}
