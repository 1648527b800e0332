//! Media that lay in a drawer, through the supervisor's feed.
use crate::lab::{Lab, NOW, choose_at};
use bumpless_trust::{Expiry, Refused, Role, WhyNot};
use bumplessd::feed::{Feed, FeedError};

const BYTES: &[u8] = b"these bytes are the node";
/// After timestamps and indexes of [`NOW`] have expired, and before roots have.
const LATER: u64 = NOW + 100 * 86_400;
/// After roots have, too.
const MUCH_LATER: u64 = NOW + 800 * 86_400;

#[tokio::test]
async fn a_folder_that_is_stale_is_refused_and_taken_where_expiry_is_waived_for_that_look_alone() {
    for now in [LATER, MUCH_LATER] {
        let lab = Lab::new(BYTES);
        let stick = lab.copy("stick").to_str().unwrap().to_owned();
        let mut feed = lab.feed_at(&[]);
        let error = feed.refresh_at(vec![stick.clone()], now, Expiry::Counts).await.unwrap_err();
        assert!(matches!(error, FeedError::Refused(Refused::Expired(..))), "{error}");
        assert!(matches!(choose_at(&feed, now, Expiry::Waived), Err(WhyNot::NoIndex(_))));

        feed.refresh_at(vec![stick.clone()], now, Expiry::Waived).await.unwrap();
        let choice = choose_at(&feed, now, Expiry::Waived).unwrap();
        feed.at(vec![stick.clone()]).fetch(&choice, |_, _| {}).await.unwrap();

        // What was kept of it is as stale as it was, now and after a restart.
        let restarted = lab.feed_at(&[]);
        for feed in [&feed, &restarted] {
            let why = choose_at(feed, now, Expiry::Counts).unwrap_err();
            assert!(matches!(why, WhyNot::Stale(Refused::Expired(..))), "{why}");
        }
        let error = feed.refresh_at(vec![stick], now, Expiry::Counts).await.unwrap_err();
        assert!(matches!(error, FeedError::Refused(Refused::Expired(..))), "{error}");
        let error = feed.refresh(now).await.unwrap_err();
        assert!(matches!(error, FeedError::NoPlace), "its own places are asked again: {error}");
    }
}

#[tokio::test]
async fn a_folder_is_verified_like_any_feed_whatever_is_waived() {
    let mut lab = Lab::new(BYTES);
    let (older, edited, stranger) = (lab.copy("older"), lab.copy("edited"), Lab::new(BYTES));
    lab.forge(|_| ());
    let mut feed = lab.feed();
    feed.refresh(NOW).await.unwrap();
    let mut text = std::fs::read_to_string(edited.join("timestamp.json")).unwrap();
    text.push(' ');
    std::fs::write(edited.join("timestamp.json"), text).unwrap();
    for (place, expected) in [
        (older, Refused::Older { role: Role::Timestamp, seen: 2, offered: 1 }.to_string()),
        (edited, "the timestamp is refused".to_owned()),
        (stranger.publisher.feed(), "the timestamp is refused".to_owned()),
    ] {
        let place = vec![place.to_str().unwrap().to_owned()];
        let error = feed.refresh_at(place, LATER, Expiry::Waived).await.unwrap_err();
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}

#[tokio::test]
async fn a_folder_may_bring_the_root_whose_fingerprint_is_known() {
    let lab = Lab::new(BYTES);
    let mut settings = lab.settings(&[lab.publisher.feed().to_str().unwrap()]);
    settings.root = Some(bumplessd::feed::FirstRoot::Sha256(lab.publisher.fingerprint().unwrap()));
    let (feed, _) = Feed::establish(settings).await.unwrap();
    let mut feed = feed.at(vec![]);
    let stick = vec![lab.publisher.feed().to_str().unwrap().to_owned()];
    feed.refresh_at(stick, NOW, Expiry::Counts).await.unwrap();
    choose_at(&feed, NOW, Expiry::Counts).unwrap();
}
