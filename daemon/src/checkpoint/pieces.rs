//! Pieces of the state under their keys in the store.

use sluice_features::pack::PackKind;
use sluice_features::sequence::{IndexPart, SequencePart};
use sluice_features::wire::Role;

use crate::pipeline::state::Piece;
use crate::store::keys::{self, Kind, Parts, Room};

/// Returns the key of a piece.
pub(super) fn key_of(piece: Piece) -> Vec<u8> {
    match piece {
        Piece::Sequences { shard, part: SequencePart::Pack(kind, number) } => {
            keys::pack(kind, shard, number)
        }
        Piece::Sequences { shard, part: SequencePart::Index(IndexPart::Page(page)) } => {
            keys::index_page(shard, page)
        }
        Piece::Sequences { shard, part: SequencePart::Index(IndexPart::Log(log)) } => {
            keys::index_log(shard, log)
        }
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
    for (of, kind) in [(Room::Users, PackKind::Users), (Room::Segment, PackKind::Segments)] {
        if room == of as u8 {
            let (shard, number) = (parts.u32()?, parts.u64()?);
            return Some(Piece::Sequences { shard, part: SequencePart::Pack(kind, number) });
        }
    }
    if room == Room::UserIndex as u8 {
        let page = IndexPart::Page(parts.u32()?);
        return Some(Piece::Sequences { shard: parts.u32()?, part: SequencePart::Index(page) });
    }
    if room == Room::UserLog as u8 {
        let log = IndexPart::Log(parts.u64()?);
        return Some(Piece::Sequences { shard: parts.u32()?, part: SequencePart::Index(log) });
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
pub(super) const ROOMS: [Room; 4] =
    [Room::Dictionary, Room::Catalogue, Room::UserIndex, Room::UserLog];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_known_by_its_key() {
        let sequences = |part| Piece::Sequences { shard: 3, part };
        let pieces = [
            sequences(SequencePart::Pack(PackKind::Users, 7)),
            sequences(SequencePart::Pack(PackKind::Segments, 1 << 40)),
            sequences(SequencePart::Index(IndexPart::Page(4095))),
            sequences(SequencePart::Index(IndexPart::Log(1 << 33))),
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
