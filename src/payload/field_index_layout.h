// The stored layout of a field index: docs/format.md, "Field indexes", is the specification.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "base/bytes.h"

namespace aionbd {

// Everything here is persistent; never reorder, never renumber.

inline constexpr uint64_t kFieldIndexMagic = 0x0A444C464E4F4941U;  // "AIONFLD\n" in the file
inline constexpr uint32_t kFieldIndexVersion = 1;
/// Of header flags: every path that occurs in the segment is listed.
inline constexpr uint32_t kPathsComplete = 1;
/// Offsets of blocks and of the parts of a column are multiples of this.
inline constexpr size_t kIndexAlignment = 8;

struct FieldIndexHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t flags;
  uint64_t rows;
  uint64_t bytes;  // of the whole index
  uint32_t fields_count;
  uint32_t path_bytes;
  uint64_t reserved[3];
};
static_assert(sizeof(FieldIndexHeader) == 64);

/// One path. The records follow the header, ascending by path; the paths' bytes follow them.
struct FieldRecord {
  uint32_t path_at;  // in the paths
  uint32_t path_bytes;
  uint64_t rows_count;  // that have the field
  uint64_t block_at;    // from the start of the index; 0: not indexed
  uint64_t block_bytes;
};
static_assert(sizeof(FieldRecord) == 32);

struct PostingRef {
  uint64_t at;  // from the start of the block
  uint32_t bytes;
  uint32_t count;  // of rows; 0: there is no posting
};
static_assert(sizeof(PostingRef) == 16);

struct ColumnRef {
  uint64_t at;     // from the start of the block
  uint64_t bytes;  // 0: there is no column
};
static_assert(sizeof(ColumnRef) == 16);

/// The start of a field's block.
struct FieldBlock {
  PostingRef exists;
  PostingRef nulls;
  PostingRef falses;
  PostingRef trues;
  ColumnRef ints;     // values i64
  ColumnRef uints;    // values u64, above INT64_MAX
  ColumnRef doubles;  // values f64, finite, no -0.0
  ColumnRef strings;
};
static_assert(sizeof(FieldBlock) == 128);

/// The start of a column: the distinct values of one kind, ascending, and the rows of each. An
/// entry is a pair of value and row.
struct ColumnHeader {
  uint32_t values_count;
  uint32_t entries_count;
  uint32_t rows_count;       // with at least one entry
  uint32_t postings_count;   // values whose rows are a posting; the others' are listed
  uint32_t posting_entries;  // entries of those values
  uint32_t text_bytes;       // of strings
};
static_assert(sizeof(ColumnHeader) == 24);

/// A value whose rows are a posting.
struct ValuePosting {
  uint32_t value;           // its index
  uint32_t entries_before;  // in postings before this one
  PostingRef posting;       // from the start of the column
};
static_assert(sizeof(ValuePosting) == 24);

}  // namespace aionbd
