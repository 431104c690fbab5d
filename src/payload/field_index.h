// The payload index of one immutable segment: for each field, value -> rows, so that a filter is
// answered by set operations instead of by reading every payload.
//
// A field is a dotted path as the filter resolves it (payload/filter.h): the index holds for each
// row exactly the value that CompiledFilter would find there, so keys with dots of their own need
// no special case. The index knows the paths of every field that occurs in the segment, also of
// those it has no values for; a field that occurs nowhere matches nothing, and that is exact.
//
// Layout: docs/format.md, "Field indexes".
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "aionbd/status.h"
#include "base/bytes.h"
#include "payload/row_set.h"

namespace aionbd {

/// Fields with values in one index: the most frequent ones. More would be a schema that filters do
/// not name, at an opening cost and a size for each.
inline constexpr size_t kIndexedFieldsMax = 64;
/// Distinct strings of one field in bytes. Beyond it the field is text rather than a label; longer
/// than this it is found by other means.
inline constexpr size_t kIndexedStringBytesMax = size_t{64} << 20;
/// Paths remembered as occurring. A segment with more uses keys as data; its index then no longer
/// knows that an unknown path does not occur.
inline constexpr size_t kIndexPathsMax = 4096;
/// All remembered paths together, in bytes.
inline constexpr size_t kIndexPathBytesMax = size_t{1} << 20;
/// Memory of a builder, see FieldIndexOptions::memory_bytes_max.
inline constexpr size_t kIndexBuildBytesMax = size_t{512} << 20;

struct FieldIndexOptions {
  /// The only fields to index, at most kIndexedFieldsMax (more: the first ones). Absent: the
  /// kIndexedFieldsMax fields that most rows have.
  std::optional<std::vector<std::string>> fields;
  /// A field whose distinct strings exceed this is not indexed.
  size_t string_bytes_max = kIndexedStringBytesMax;
  /// When the values gathered exceed this, the largest field is given up until they do not.
  /// `finish` needs up to about as much again.
  size_t memory_bytes_max = kIndexBuildBytesMax;
};

/// Makes the index of one segment from its payloads.
/// Thread safety: single owner.
class FieldIndexBuilder {
 public:
  explicit FieldIndexBuilder(FieldIndexOptions options = {});
  FieldIndexBuilder(FieldIndexBuilder&&) noexcept;
  FieldIndexBuilder& operator=(FieldIndexBuilder&&) noexcept;
  ~FieldIndexBuilder();

  /// The payload of the next row, from row 0 on; an empty payload is a row without fields.
  /// REQUIRES: check_payload(payload).ok(); fewer than 2^32 - 1 rows before.
  /// Cost: about 0.1 us per field of the payload.
  void add(Bytes payload);

  uint64_t rows_count() const;
  /// Heap bytes of the values gathered so far.
  size_t memory_bytes() const;

  /// The serialised index of the rows added. The builder is empty afterwards.
  std::string finish() &&;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// What an index says about the rows that match a filter.
struct IndexAnswer {
  RowSet upper;        // every matching row is in it
  bool exact = false;  // and no other; else the payloads of `upper` are to be checked
};

/// How many rows match a filter: at least `lower`, at most `upper`.
struct CountBounds {
  uint64_t lower = 0;
  uint64_t upper = 0;
};

/// A serialised index, read in place. CompiledFilter::evaluate and ::estimate ask it.
///
/// Everything read is checked where it is read: bytes that are not what a builder wrote are met
/// with `corruption` by `open`, or later make the field as good as not indexed. They cannot make a
/// reader leave the bytes, nor allocate more than about one bit per row and filter clause, plus at
/// most as much as they are. (Bytes
/// that are well-formed but say something else are for the checksums of the file to notice.)
/// Thread safety: immutable.
class FieldIndex {
 public:
  /// `bytes` must outlive the index. `rows`: of the segment, to be compared with the index's own
  /// count.
  /// Errors: corruption. Cost: O(paths known to the index), no allocation.
  static Result<FieldIndex> open(Bytes bytes, uint64_t rows);

  uint64_t rows_count() const { return rows_; }

  /// One path that occurs in the segment (or that was asked for).
  struct Field {
    std::string_view path;
    bool indexed = false;
    uint64_t rows_count = 0;  // that have the field
    uint64_t bytes = 0;       // of the index that are this field's
  };
  /// Ascending by path. For inspection and figures.
  size_t fields_count() const { return fields_count_; }
  Field field(size_t i) const;

  /// Heap bytes held: none, the bytes given are the caller's.
  size_t memory_bytes() const { return 0; }

 private:
  friend class FieldIndexReader;
  FieldIndex(Bytes bytes, uint64_t rows) : bytes_(bytes), rows_(rows) {}

  Bytes bytes_;
  uint64_t rows_ = 0;
  size_t fields_count_ = 0;
  bool paths_complete_ = false;
};

}  // namespace aionbd
