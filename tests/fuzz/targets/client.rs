//! What a client sends to a node, what a node answers it, and a manifest that a name leads to.
#![no_main]

use bumpless_worker::client::manifest::Manifest;
use bumpless_worker::wire::{Answer, Request, SPOKEN, Signal};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else { return };
    match which % 4 {
        0 => match Request::decode(bytes, SPOKEN) {
            Ok(request) => {
                let again = request.encode();
                assert_eq!(Request::decode(&again, SPOKEN).as_ref(), Ok(&request));
            }
            // What it gets instead can be said.
            Err(answer) => drop(Answer::decode(&answer.encode()).expect("an answer")),
        },
        1 => {
            if let Ok(answer) = Answer::decode(bytes) {
                let again = answer.encode();
                let back = Answer::decode(&again).expect("what was written can be read");
                // A reason that was no text is replaced, and may be cut, once.
                assert_eq!(Answer::decode(&back.encode()).expect("an answer"), back);
            }
        }
        2 => {
            if let Ok(Some(signal)) = Signal::decode(bytes) {
                assert!(bytes.starts_with(&signal.encode()));
            }
        }
        _ => {
            if let Ok(manifest) = Manifest::decode(bytes) {
                assert_eq!(Manifest::decode(&manifest.encode()).as_ref(), Ok(&manifest));
                assert!(!manifest.names.is_empty());
            }
        }
    }
});
