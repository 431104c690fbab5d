// Logical operations: the meaning of log records. Each carries full values, never a delta that
// needs an older copy. Layout: docs/format.md, "Log records".
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "aionbd/options.h"
#include "aionbd/status.h"
#include "aionbd/types.h"
#include "base/bytes.h"

namespace aionbd {

/// Identity of a collection for the life of the store: the lsn of the record that created it. A
/// recreated name is another collection.
using CollectionUid = uint64_t;

struct CreateOp {
  std::string name;
  CollectionOptions options;
};

struct DropOp {
  CollectionUid collection = 0;
};

/// Points to insert or replace; a view into the record it was decoded from.
struct UpsertOp {
  CollectionUid collection = 0;
  uint32_t dimension = 0;
  IdType id_type = IdType::kU64;
  std::vector<PointId> ids;
  const std::byte* values = nullptr;  // float[ids.size() x dimension], 8-byte aligned in the record
  std::vector<Bytes> payloads;        // encoded, checked

  const std::byte* row(size_t i) const { return values + i * dimension * sizeof(float); }
};

struct RemoveOp {
  CollectionUid collection = 0;
  std::vector<PointId> ids;
};

using Op = std::variant<CreateOp, DropOp, UpsertOp, RemoveOp>;

/// Errors: invalid_argument naming the field: name or dimension out of bounds.
Status check_collection_name(std::string_view name);
Status check_collection_options(const CollectionOptions& options, uint32_t dimension_max);

/// Whether neither infinity nor NaN is among them.
bool all_finite(std::span<const float> values);

/// Checks everything that can be wrong with the points themselves, and encodes.
/// Errors: invalid_argument naming the point and the field.
Result<std::string> encode_upsert(CollectionUid collection, const CollectionOptions& options,
                                  std::span<const Point> points);
std::string encode_create(const CreateOp& op);
std::string encode_drop(CollectionUid collection);
std::string encode_remove(CollectionUid collection, IdType id_type, std::span<const PointId> ids);

/// Errors: corruption. The op points into `record`.
Result<Op> decode_op(Bytes record);

/// The options part of a create record and of the catalog.
void encode_collection_options(const CollectionOptions& options, Encoder& out);
/// False when the bytes are not options.
bool decode_collection_options(Decoder& in, CollectionOptions& out);

}  // namespace aionbd
