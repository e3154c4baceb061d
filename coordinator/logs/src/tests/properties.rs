//! Whatever comes in whatever order, every line is there once.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Ship frames from..to of a stream, as a node does after whatever happened to it.
    Ship {
        stream: usize,
        from: usize,
        frames: usize,
    },
    /// Ask, and ship what follows.
    GoOn { stream: usize, frames: usize },
    /// The coordinator ends and starts.
    Reopen,
    /// It ends by a power cut: the last segment loses bytes that were never acknowledged... here: junk is
    /// left behind the last frame.
    Junk { stream: usize, bytes: usize },
}

const STREAMS: usize = 2;
const FRAMES: usize = 25;

fn step() -> impl Strategy<Value = Step> {
    let stream = 0..STREAMS;
    prop_oneof![
        6 => (stream.clone(), 0..FRAMES, 1..8_usize)
            .prop_map(|(stream, from, frames)| Step::Ship { stream, from, frames }),
        6 => (stream.clone(), 1..8_usize).prop_map(|(stream, frames)| Step::GoOn { stream, frames }),
        1 => Just(Step::Reopen),
        1 => (stream, 1..40_usize).prop_map(|(stream, bytes)| Step::Junk { stream, bytes }),
    ]
}

fn log(stream: usize) -> Log {
    let mut log = Log::new();
    for i in 1..FRAMES {
        log.line((i * 10 + stream) as u64, &format!("{stream} {i}"));
    }
    log
}

fn offset(log: &Log, frame: usize) -> usize {
    log.starts.get(frame).copied().unwrap_or(log.bytes.len())
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let logs: Vec<Log> = (0..STREAMS).map(log).collect();
    let keys: Vec<StreamKey> = (0..STREAMS)
        .map(|i| key(&format!("web.1.{i}.1"), 1))
        .collect();
    let mut shipped = [0_usize; STREAMS];
    let mut store = small(dir.path());
    for step in steps {
        match step {
            Step::Ship {
                stream,
                from,
                frames,
            } => {
                let log = &logs[stream];
                let (begin, end) = (offset(log, from), offset(log, from + frames));
                let answer = store
                    .append(&keys[stream], begin as u64, log.range(begin..end))
                    .await;
                if from <= shipped[stream] {
                    shipped[stream] = shipped[stream].max((from + frames).min(FRAMES));
                    assert_eq!(answer.unwrap(), offset(log, shipped[stream]) as u64);
                } else {
                    let wanted = offset(log, shipped[stream]) as u64;
                    let error = answer.unwrap_err();
                    assert!(
                        matches!(error, LogsError::WrongOffset { durable, .. } if durable == wanted)
                    );
                }
            }
            Step::GoOn { stream, frames } => {
                let log = &logs[stream];
                let durable = store.durable(&keys[stream]).await.unwrap();
                let begin = usize::try_from(durable).unwrap();
                assert_eq!(begin, offset(log, shipped[stream]));
                let end = offset(log, shipped[stream] + frames);
                if end > begin {
                    store
                        .append(&keys[stream], durable, log.range(begin..end))
                        .await
                        .unwrap();
                    shipped[stream] = (shipped[stream] + frames).min(FRAMES);
                }
            }
            Step::Reopen => {
                drop(store);
                store = small(dir.path());
            }
            Step::Junk { stream, bytes } => {
                drop(store);
                let folder = keys[stream].dir(dir.path());
                if let Some(last) = berth_logfile::segments(&folder).unwrap().last() {
                    let mut content = std::fs::read(&last.path).unwrap();
                    content.extend(vec![0xa5; bytes]);
                    std::fs::write(&last.path, content).unwrap();
                }
                store = small(dir.path());
            }
        }
    }
    let mut wanted: Vec<(usize, usize)> = (0..STREAMS)
        .flat_map(|stream| (1..shipped[stream]).map(move |i| (i, stream)))
        .collect();
    wanted.sort_unstable();
    let wanted: Vec<String> = wanted
        .iter()
        .map(|(i, stream)| format!("{stream} {i}"))
        .collect();
    assert_eq!(read(&store, service("web")).await, wanted);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_line_is_lost_or_doubled(steps in proptest::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
