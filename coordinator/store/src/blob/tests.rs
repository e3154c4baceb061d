use tokio::io::AsyncReadExt;

use super::*;

fn content(length: usize) -> (Vec<u8>, Digest) {
    let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
    let digest = *blake3::hash(&bytes).as_bytes();
    (bytes, digest)
}

#[tokio::test]
async fn an_upload_goes_on_where_it_stood() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, digest) = content(3 << 20);
    let store = BlobStore::open(dir.path()).unwrap();
    assert_eq!(store.offset(&digest).await.unwrap(), 0);
    assert_eq!(
        store.append(&digest, 0, &bytes[..1000]).await.unwrap(),
        1000
    );
    drop(store);
    let store = BlobStore::open(dir.path()).unwrap();
    assert_eq!(store.offset(&digest).await.unwrap(), 1000);
    assert!(matches!(
        store.append(&digest, 999, &bytes[999..]).await,
        Err(BlobError::WrongOffset { expected: 1000, .. })
    ));
    assert!(!store.exists(&digest).await.unwrap());
    assert!(matches!(
        store.finish(&digest, bytes.len() as u64).await,
        Err(BlobError::Incomplete { offset: 1000, .. })
    ));
    let mut upload = store.upload(&digest, 1000).await.unwrap();
    for chunk in bytes[1000..].chunks(70_000) {
        upload.write(chunk).await.unwrap();
    }
    assert_eq!(upload.sync().await.unwrap(), bytes.len() as u64);
    store.finish(&digest, bytes.len() as u64).await.unwrap();
    store.finish(&digest, bytes.len() as u64).await.unwrap();
    assert_eq!(store.size(&digest).await.unwrap(), Some(bytes.len() as u64));
    assert_eq!(store.offset(&digest).await.unwrap(), bytes.len() as u64);
    assert!(matches!(
        store.upload(&digest, 0).await,
        Err(BlobError::WrongOffset { expected, .. }) if expected == bytes.len() as u64
    ));
    assert!(matches!(
        upload.write(&[0; GATHER]).await,
        Err(BlobError::Superseded)
    ));
    let mut read = Vec::new();
    store
        .open_read(&digest)
        .await
        .unwrap()
        .read_to_end(&mut read)
        .await
        .unwrap();
    assert!(read == bytes);
    store.remove(&digest).await.unwrap();
    assert!(matches!(
        store.open_read(&digest).await,
        Err(BlobError::NotFound { .. })
    ));
}

#[tokio::test]
async fn wrong_content_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, digest) = content(5000);
    let store = BlobStore::open(dir.path()).unwrap();
    for wrong in [vec![1; 5000], [bytes.clone(), vec![0]].concat()] {
        store.append(&digest, 0, &wrong).await.unwrap();
        assert!(matches!(
            store.finish(&digest, 5000).await,
            Err(BlobError::WrongContent { .. })
        ));
        assert_eq!(store.offset(&digest).await.unwrap(), 0);
    }
    store.append(&digest, 0, &bytes).await.unwrap();
    store.finish(&digest, 5000).await.unwrap();
}

#[tokio::test]
async fn the_last_who_comes_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, digest) = content(2 * GATHER);
    let store = BlobStore::open(dir.path()).unwrap();
    let mut first = store.upload(&digest, 0).await.unwrap();
    first.write(&bytes[..GATHER]).await.unwrap();
    let stands = store.offset(&digest).await.unwrap();
    assert_eq!(stands, GATHER as u64);
    let mut second = store.upload(&digest, stands).await.unwrap();
    assert!(matches!(
        first.write(&bytes[GATHER..]).await,
        Err(BlobError::Superseded)
    ));
    assert!(matches!(first.sync().await, Err(BlobError::Superseded)));
    second.write(&bytes[GATHER..]).await.unwrap();
    second.sync().await.unwrap();
    store.finish(&digest, bytes.len() as u64).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_end_with_one_whole_blob() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, digest) = content(300_000);
    let bytes = Arc::new(bytes);
    let store = BlobStore::open(dir.path()).unwrap();
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let (store, bytes) = (store.clone(), Arc::clone(&bytes));
            tokio::spawn(async move {
                while !store.exists(&digest).await.unwrap() {
                    let offset = store.offset(&digest).await.unwrap();
                    let at = usize::try_from(offset).unwrap();
                    if at == bytes.len() {
                        let _ = store.finish(&digest, offset).await;
                        continue;
                    }
                    let end = (at + 20_000).min(bytes.len());
                    let _ = store.append(&digest, offset, &bytes[at..end]).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut read = Vec::new();
    store
        .open_read(&digest)
        .await
        .unwrap()
        .read_to_end(&mut read)
        .await
        .unwrap();
    assert!(read == *bytes);
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let dir = tempfile::tempdir().unwrap();
    let (_, digest) = content(0);
    let store = BlobStore::open(dir.path()).unwrap();
    store.finish(&digest, 0).await.unwrap();
    assert_eq!(store.size(&digest).await.unwrap(), Some(0));
}

#[tokio::test]
async fn forgotten_uploads_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, digest) = content(100);
    let store = BlobStore::open(dir.path()).unwrap();
    store.append(&digest, 0, &bytes[..10]).await.unwrap();
    let held = store.upload(&digest, 10).await.unwrap();
    assert_eq!(store.sweep(Duration::ZERO).await.unwrap(), 0);
    drop(held);
    assert_eq!(store.sweep(PARTIAL_AGE).await.unwrap(), 0);
    assert_eq!(store.sweep(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(store.offset(&digest).await.unwrap(), 0);
    // Also those of an earlier run.
    store.append(&digest, 0, &bytes[..10]).await.unwrap();
    let path = dir.path().join("partial").join(hex::encode(digest));
    let old = SystemTime::now() - PARTIAL_AGE - Duration::from_secs(1);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(old)
        .unwrap();
    BlobStore::open(dir.path()).unwrap();
    assert!(!path.exists());
}

const SMALL: &str = "BERTH_TEST_BLOBS_FULL";

/// Not a test of its own: runs on a small file system.
#[tokio::test]
async fn child_on_a_small_disk() {
    let Ok(dir) = std::env::var(SMALL) else {
        return;
    };
    let dir = Path::new(&dir);
    let (bytes, digest) = content(1_500_000);
    let store = BlobStore::open(&dir.join("blobs")).unwrap();
    assert_eq!(
        store.append(&digest, 0, &bytes[..400_000]).await.unwrap(),
        400_000
    );
    let error = store
        .append(&digest, 400_000, &bytes[400_000..])
        .await
        .unwrap_err();
    assert!(matches!(error, BlobError::DiskFull { .. }), "{error:?}");
    // What was acknowledged stays, and it goes on once there is room.
    assert_eq!(store.offset(&digest).await.unwrap(), 400_000);
    fs::remove_file(dir.join("ballast")).unwrap();
    store
        .append(&digest, 400_000, &bytes[400_000..])
        .await
        .unwrap();
    store.finish(&digest, bytes.len() as u64).await.unwrap();
}

#[test]
fn a_full_disk_interrupts_an_upload_and_no_more() {
    crate::testing::on_small_disk(SMALL, "blob::tests::child_on_a_small_disk");
}

#[tokio::test]
async fn only_what_is_old_and_unclaimed_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path()).unwrap();
    let mut digests = Vec::new();
    for length in [10, 20, 30] {
        let (bytes, digest) = content(length);
        store.append(&digest, 0, &bytes).await.unwrap();
        store.finish(&digest, length as u64).await.unwrap();
        digests.push(digest);
    }
    let age = Duration::from_secs(3600);
    assert_eq!(store.older(age).await.unwrap(), Vec::<Digest>::new());
    let old = SystemTime::now() - 2 * age;
    for digest in &digests[..2] {
        let file = File::open(store.path(digest)).unwrap();
        file.set_modified(old).unwrap();
    }
    let mut expected = digests[..2].to_vec();
    expected.sort_unstable();
    assert_eq!(store.older(age).await.unwrap(), expected);
    // Somebody comes back for the first.
    assert_eq!(store.claim(&digests[0]).await.unwrap(), Some(10));
    assert!(!store.remove_older(&digests[0], age).await.unwrap());
    assert!(store.remove_older(&digests[1], age).await.unwrap());
    assert!(!store.remove_older(&digests[1], age).await.unwrap());
    assert_eq!(store.claim(&digests[1]).await.unwrap(), None);
    assert!(store.exists(&digests[0]).await.unwrap());
}
