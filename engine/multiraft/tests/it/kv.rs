//! The key-value machine against a plain model.

use std::collections::BTreeMap;

use bytes::Bytes;
use pontoon_multiraft::Kv;
use pontoon_wire::client::OperationOutcome;
use pontoon_wire::command::KvOperation;
use proptest::prelude::*;

fn operation() -> impl Strategy<Value = KvOperation> {
    let key = || (0u8..6).prop_map(|key| Bytes::from(vec![key]));
    let value = || (0u8..4).prop_map(|value| Bytes::from(vec![value; 3]));
    prop_oneof![
        (key(), value()).prop_map(|(key, value)| KvOperation::Put { key, value }),
        key().prop_map(|key| KvOperation::Delete { key }),
        (key(), proptest::option::of(value()), proptest::option::of(value()))
            .prop_map(|(key, expected, value)| KvOperation::CompareAndSet { key, expected, value }),
    ]
}

proptest! {
    #[test]
    fn outcomes_and_state_equal_the_model(operations in proptest::collection::vec(operation(), 0..60)) {
        let mut machine = Kv::default();
        let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        for operation in &operations {
            let expected = match operation.clone() {
                KvOperation::Put { key, value } => {
                    model.insert(key, value);
                    OperationOutcome::Put
                }
                KvOperation::Delete { key } => OperationOutcome::Deleted { existed: model.remove(&key).is_some() },
                KvOperation::CompareAndSet { key, expected, value } => {
                    let current = model.get(&key).cloned();
                    let succeeded = current == expected;
                    match value {
                        Some(value) if succeeded => drop(model.insert(key, value)),
                        None if succeeded => drop(model.remove(&key)),
                        _ => {}
                    }
                    OperationOutcome::Swapped { succeeded, current }
                }
            };
            prop_assert_eq!(machine.apply(operation), expected);
        }
        prop_assert_eq!(machine.len(), model.len());
        for (key, value) in &model {
            prop_assert_eq!(machine.get(key), Some(value.clone()));
        }
        let mut again = Kv::default();
        for (key, value) in &model {
            again.apply(&KvOperation::Put { key: key.clone(), value: value.clone() });
        }
        prop_assert_eq!(machine.digest(), again.digest());
    }
}
