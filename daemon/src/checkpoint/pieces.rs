//! Pieces of the state under their keys in the store.

use sluice_features::ids::UserId;
use sluice_features::sequence::SegmentKey;
use sluice_features::wire::Role;

use crate::pipeline::state::Piece;
use crate::store::keys::{self, Kind, Parts, Room};

/// Returns the key of a piece.
pub(super) fn key_of(piece: Piece) -> Vec<u8> {
    match piece {
        Piece::Segment { shard, key } => keys::segment(shard, key.user.0, key.place),
        Piece::Items(page) => keys::dictionary(Kind::Item, page),
        Piece::Users(page) => keys::dictionary(Kind::User, page),
        Piece::Texts(whose, page) => keys::texts(kind_of(whose), page),
        Piece::ItemFeatures(page) => keys::catalogue(Kind::Item, page),
        Piece::UserFeatures(page) => keys::catalogue(Kind::User, page),
        Piece::Open { shard, page } => keys::open_impressions(shard, page),
    }
}

/// Returns the piece of a key, `None` for a key of another room.
pub(super) fn piece_of(key: &[u8]) -> Option<Piece> {
    let mut parts = Parts::behind_room(key);
    let room = *key.first()?;
    if room == Room::Segment as u8 {
        let (shard, user, place) = (parts.u32()?, UserId(parts.u64()?), parts.u64()?);
        return Some(Piece::Segment { shard, key: SegmentKey { user, place } });
    }
    if room == Room::OpenImpressions as u8 {
        return Some(Piece::Open { shard: parts.u32()?, page: parts.u64()? });
    }
    let (kind, page) = (parts.u8()?, parts.u32()?);
    let whose = [Role::Item, Role::User].into_iter().find(|whose| kind_of(*whose) as u8 == kind)?;
    match (room, whose) {
        (room, Role::Item) if room == Room::Dictionary as u8 => Some(Piece::Items(page)),
        (room, Role::User) if room == Room::Dictionary as u8 => Some(Piece::Users(page)),
        (room, Role::Item) if room == Room::Catalogue as u8 => Some(Piece::ItemFeatures(page)),
        (room, Role::User) if room == Room::Catalogue as u8 => Some(Piece::UserFeatures(page)),
        (room, whose) if room == Room::Texts as u8 => Some(Piece::Texts(whose, page)),
        _ => None,
    }
}

/// Returns the kind by which keys tell items and users apart.
pub(super) fn kind_of(whose: Role) -> Kind {
    match whose {
        Role::Item => Kind::Item,
        Role::User => Kind::User,
    }
}

/// The rooms whose pieces are put back at the start.
pub(super) const ROOMS: [Room; 3] = [Room::Dictionary, Room::Catalogue, Room::Segment];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_known_by_its_key() {
        let tail = SegmentKey { user: UserId(7), place: SegmentKey::TAIL };
        let pieces = [
            Piece::Segment { shard: 3, key: tail },
            Piece::Segment { shard: 0, key: SegmentKey { place: 1 << 32, ..tail } },
            Piece::Items(300),
            Piece::Users(1),
            Piece::Texts(Role::Item, 5),
            Piece::Texts(Role::User, 70_000),
            Piece::ItemFeatures(2),
            Piece::UserFeatures(70_000),
            Piece::Open { shard: 2, page: 1 << 40 },
        ];
        for piece in pieces {
            assert_eq!(piece_of(&key_of(piece)), Some(piece));
        }
        assert_eq!(piece_of(&keys::Meta::Checkpoint.key()), None);
        assert_eq!(piece_of(&[]), None);
    }
}
