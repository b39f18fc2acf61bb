//! What members say of themselves, and how far away they are.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use memberlist::protocol::MetaError;
use memberlist::{Event, PingError, UpdateError};

use crate::transports::TestTransport;
use crate::wait::{agree, until, until_async, within};
use crate::{Cluster, EventLog, Traffic};

/// New meta is told to all, and is everywhere soon after it was told.
pub async fn meta<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let nodes = cluster.joined(5).await;
    let log = EventLog::of(&nodes[4]).await;
    for (i, node) in nodes.iter().enumerate() {
        within("the news is out", node.update_meta(format!("rack {i}"))).await.unwrap();
    }
    let all: Vec<_> = nodes.iter().collect();
    agree(&all).await;
    assert_eq!(&nodes[4].member("n0").unwrap().node.meta[..], b"rack 0");
    until("all updates are told", || log.count(|e| matches!(e, Event::Updated(_))) >= 5).await;
    assert_eq!(log.count(|event| matches!(event, Event::Updated(_))), 5);
}

/// Meta that is too long is refused, and nothing has changed.
pub async fn meta_too_long<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let nodes = cluster.joined(2).await;
    nodes[0].update_meta(vec![b'x'; 512]).await.unwrap();
    let before = nodes[0].own().unwrap();
    let refused = nodes[0].update_meta(vec![b'y'; 513]).await;
    assert_eq!(refused, Err(UpdateError::Meta(MetaError { len: 513, limit: 512 })));
    assert_eq!(nodes[0].own().unwrap(), before);
    agree(&[&nodes[0], &nodes[1]]).await;
    assert_eq!(nodes[1].member("n0").unwrap().node.meta.len(), 512);
}

/// A ping measures the way there and back, or says why it could not.
pub async fn ping<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let nodes = cluster.joined(2).await;
    let rtt = nodes[0].ping("n1").await.unwrap();
    assert!(
        rtt < Duration::from_millis(150),
        "an answer after the timeout counts for none: {rtt:?}"
    );
    let unknown = nodes[0].ping("n2").await;
    assert_eq!(unknown, Err(PingError::NotAMember("n2".to_owned())));
    cluster.rules().block(nodes[1].addr(), nodes[0].addr(), Traffic::Packets);
    let (addr, timeout) = (nodes[1].addr(), Duration::from_millis(150));
    let silent = nodes[0].ping("n1").await;
    assert_eq!(silent, Err(PingError::NoAnswer { name: "n1".to_owned(), addr, timeout }));
}

/// A cluster over IPv6.
pub async fn ipv6<T: TestTransport>() {
    let cluster = Cluster::<T>::at(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let nodes = cluster.joined(3).await;
    assert!(nodes.iter().all(|node| node.addr().is_ipv6()));
    until_async("probes are answered", || async {
        nodes[0].stats().await.unwrap().probes_acked_direct >= 2
    })
    .await;
    // As an address is written, and with the name of who is expected there.
    let newcomer = cluster.node("newcomer").await;
    newcomer.join([format!("n0/{}", nodes[0].addr())]).await.unwrap();
    agree(&[&nodes[0], &nodes[1], &nodes[2], &newcomer]).await;
    newcomer.send_reliable("n2", "over IPv6").await.unwrap();
}

/// However many callers ask at once, each gets its answer.
pub async fn many_questions_at_once<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let node = cluster.node("n0").await;
    let questions: Vec<_> = (0..500)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move { node.stats().await.is_ok() })
        })
        .collect();
    for question in questions {
        assert!(within("an answer", question).await.unwrap());
    }
}
