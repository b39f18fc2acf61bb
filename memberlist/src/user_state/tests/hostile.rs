//! One side that does not do as it should.

use super::*;

/// What a peer gets for the last of these requests, and how the answering side ends.
async fn served(
    side: &Side,
    from: Peer,
    requests: Vec<MessageFrames>,
) -> (Result<StreamItem, StreamFault>, Result<(), StreamFault>) {
    let (near, far) = duplex(1 << 16);
    let answering = answer(far, side.context.clone(), from);
    let asking = async {
        let mut channel = Side::new("a", "").dial(near);
        let mut last = Err(StreamFault::Eof);
        for request in requests {
            channel.ask(request).await?;
            last = channel.receive().await;
        }
        last
    };
    tokio::join!(asking, answering)
}

/// How a question ends that is answered with these messages.
async fn answered(asker: &Side, answers: Vec<MessageFrames>) -> Result<(), ExchangeError> {
    let (near, far) = duplex(1 << 16);
    let asking = async {
        let (mut channel, own) = (asker.dial(near), Own::ask(&asker.context).unwrap());
        ask(&mut channel, &asker.context, &peer("b"), own).await
    };
    let answering = async {
        let mut channel = Channel::accepted(far, asker.context.clone());
        channel.receive().await.unwrap();
        for answer in answers {
            // Who asked may have heard enough.
            let _ = channel.send(answer).await;
        }
    };
    tokio::join!(asking, answering).0
}

fn question() -> Question {
    Question { from: id("a"), to: id("b"), own: Digest::of(b"x"), held: None }
}

#[tokio::test(start_paused = true)]
async fn questions_that_are_none_are_refused_and_change_nothing() {
    let mut b = Side::new("b", "of b");
    let other = Question { to: id("c"), ..question() };
    let bytes = question().encode();
    let longer = [&bytes[..], &[0]].concat();
    let misunderstood = "a question about user states";
    let cases = [
        (stranger(), vec![], misunderstood),
        (stranger(), bytes[..bytes.len() - 1].to_vec(), misunderstood),
        (stranger(), longer, misunderstood),
        (stranger(), vec![0; 1 << 20], misunderstood),
        (stranger(), other.encode(), "this is b, not c"),
        (peer("c"), bytes.clone(), "c cannot ask for a"),
    ];
    for (from, body, expected) in cases {
        let (answer, _) = served(&b, from, vec![request(body)]).await;
        let Ok(StreamItem::Error(text)) = answer else { panic!("{expected}: {answer:?}") };
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!((b.held("a"), b.merged().len()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn so_many_questions_are_answered_at_once() {
    let mut b = Side::new("b", "of b");
    let asked = || vec![request(question().encode())];
    b.context.max_user_states = 1;
    let taken = b.context.user_states.serving(1);
    assert!(taken.is_some());
    let (answer, ended) = served(&b, stranger(), asked()).await;
    let Ok(StreamItem::Error(text)) = answer else { panic!("{answer:?}") };
    assert!(text.contains("too many"), "{text}");
    ended.unwrap();
    drop(taken);
    for _ in 0..3 {
        let (answer, _) = served(&b, stranger(), asked()).await;
        assert!(matches!(answer, Ok(StreamItem::Response { status: DONE, .. })), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn states_that_are_not_what_was_said_are_refused_and_change_nothing() {
    let mut b = Side::new("b", "");
    b.context.limits.max_user_bytes = 100;
    let asked = || request(question().encode());
    let ends = [
        (request("y"), "another than its digest"),
        (request(""), "another than its digest"),
        (request("xx"), "another than its digest"),
        (request(vec![0; 101]), "over the limit"),
        (MessageFrames::request(7, "x".into()), "has no place"),
        (MessageFrames::response(0, "x".into()), "has no place"),
    ];
    for (state, expected) in ends {
        let (answer, _) = served(&b, stranger(), vec![asked(), state]).await;
        let Ok(StreamItem::Error(text)) = answer else { panic!("{expected}: {answer:?}") };
        assert!(text.contains(expected), "{text}");
    }
    // Who goes away in between has changed nothing either.
    let (answer, ended) = served(&b, stranger(), vec![asked()]).await;
    assert!(matches!(answer, Ok(StreamItem::Response { status: DONE, .. })), "{answer:?}");
    assert!(matches!(ended, Err(StreamFault::Eof)), "{ended:?}");
    assert_eq!((b.held("a"), b.merged().len()), (None, 0));
    let (answer, ended) = served(&b, stranger(), vec![asked(), request("x")]).await;
    assert!(matches!(answer, Ok(StreamItem::Response { status: DONE, .. })), "{answer:?}");
    ended.unwrap();
    assert_eq!((b.held("a"), b.merged().len()), (Digest::of(b"x"), 1));
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_none_fail_and_change_nothing() {
    let mut a = Side::new("a", "of a");
    let (ours, theirs) = (Digest::of(b"of a"), Digest::of(b"of b"));
    let response = |body: &[u8]| MessageFrames::response(DONE, Bytes::copy_from_slice(body));
    let answer = |wanted, follows, own| response(&Answer { wanted, follows, own }.encode());
    let cases = [
        // Not understood, or another message.
        vec![response(b"")],
        vec![response(&[0, 1, 7])],
        vec![response(&[0; 1 << 20])],
        vec![MessageFrames::response(1, vec![0, 0].into())],
        vec![request("x")],
        // A state that there is none of, that is not needed, that is kept back.
        vec![answer(false, true, None), response(b"x")],
        vec![answer(false, true, ours), response(b"of a")],
        vec![answer(false, false, theirs)],
        // It wants what it has.
        vec![answer(true, false, ours)],
        // A state that is another than was said, or does not come.
        vec![answer(false, true, theirs), response(b"of c")],
        vec![answer(false, true, theirs), response(b"")],
        vec![answer(false, true, theirs), request("of b")],
        vec![answer(false, true, theirs)],
    ];
    for (number, answers) in cases.into_iter().enumerate() {
        let ended = answered(&a, answers).await;
        assert!(matches!(ended, Err(ExchangeError::BadAnswer { .. })), "{number}: {ended:?}");
        assert_eq!((a.held("b"), a.merged().len()), (None, 0), "{number}");
    }
    // A peer that does not know the topic.
    let text = "this node has no answers on topic 2";
    let ended = answered(&a, vec![MessageFrames::error(Dialect::Native, text)]).await;
    assert!(matches!(ended, Err(ExchangeError::Refused { .. })), "{ended:?}");
    answered(&a, vec![answer(false, true, theirs), response(b"of b")]).await.unwrap();
    assert_eq!((a.held("b"), a.merged().len()), (theirs, 1));
    // It holds that now.
    answered(&a, vec![answer(false, false, theirs)]).await.unwrap();
}

/// A state that comes waits for its share of the memory, as any message does, and gives it back.
#[tokio::test(start_paused = true)]
async fn a_state_that_comes_is_charged() {
    let mut b = Side::new("b", "");
    let all = b.context.budget.available_permits();
    let state = vec![7; 700_000];
    let asked = Question { own: Digest::of(&state), ..question() }.encode();
    let requests = || vec![request(asked.clone()), request(state.clone())];
    let others = Arc::clone(&b.context.budget).try_acquire_many_owned(all as u32).unwrap();
    let (_, ended) = served(&b, stranger(), requests()).await;
    assert!(matches!(ended, Err(StreamFault::Stalled(_))), "{ended:?}");
    drop(others);
    served(&b, stranger(), requests()).await.1.unwrap();
    assert_eq!(b.context.budget.available_permits(), all);
    assert_eq!(b.merged().len(), 1);
}
