//! When to cut: a moment with no request under way, or one that is as quiet as it gets.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// Returns when no request is under way. For the first half of the window it only learns how quiet it
/// gets; in the second half it takes the first moment that is as quiet; after the window any.
pub async fn suitable(mut under_way: watch::Receiver<usize>, window: Duration) {
    let mut lowest = usize::MAX;
    let quiet = timeout(window / 2, async {
        loop {
            let now = *under_way.borrow_and_update();
            lowest = lowest.min(now);
            if now == 0 || under_way.changed().await.is_err() {
                return;
            }
        }
    });
    if quiet.await.is_ok() {
        return;
    }
    // After the window it is forced: whatever is under way is held back or relayed whole.
    let _ = timeout(window / 2, under_way.wait_for(|now| *now <= lowest)).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[tokio::test]
    async fn an_idle_node_is_cut_at_once_and_a_busy_one_as_soon_as_it_is_idle() {
        let hour = Duration::from_secs(3600);
        let (_idle, under_way) = watch::channel(0);
        suitable(under_way, hour).await;
        let (busy, under_way) = watch::channel(7);
        let waiting = tokio::spawn(suitable(under_way, hour));
        busy.send(3).unwrap();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        busy.send(0).unwrap();
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_node_that_is_never_idle_is_cut_all_the_same() {
        let (_busy, under_way) = watch::channel(7);
        suitable(under_way, Duration::from_millis(2)).await;
    }
}
