// Reading a field index in place: fields, columns, and the rows of values, checked as they are
// read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "payload/field_index.h"
#include "payload/field_index_layout.h"
#include "payload/posting.h"
#include "payload/stored_field.h"

namespace aionbd {

/// The distinct values of one kind in one field, ascending, with their rows. Values and entries
/// (pairs of value and row) are named by position.
/// Thread safety: immutable.
class ColumnReader {
 public:
  /// None when the parts do not lie within `bytes`. `kind`: kInt64, kUint64, kDouble or kString.
  static std::optional<ColumnReader> open(Bytes bytes, ValueTag kind);

  uint32_t values_count() const { return header_.values_count; }
  /// Entries minus rows: 0 when no row has two values.
  uint32_t extra_entries() const { return header_.entries_count - header_.rows_count; }

  /// None when what is stored cannot be a value.
  std::optional<Scalar> value(uint32_t i) const;
  /// The entries of the values before value `i`. None when that cannot be. REQUIRES: i <= count.
  std::optional<uint32_t> entries_before(uint32_t i) const;

  /// Adds the rows of the values [first, last); false when they are damaged.
  bool add_rows(uint32_t first, uint32_t last, DenseRows* out) const;
  /// Appends the rows of the values [first, last), in the order of the values; false when they are
  /// damaged, or a posting is among them.
  bool append_listed(uint32_t first, uint32_t last, std::vector<uint32_t>* out) const;
  /// The posting of one value; empty when its rows are listed.
  Bytes value_posting(uint32_t value) const;

 private:
  uint32_t first_posting_from(uint32_t value) const;
  ValuePosting posting(uint32_t i) const { return load_at<ValuePosting>(postings_, i); }
  Bytes posting_bytes(const PostingRef& ref) const;
  /// Where in the list the rows of values from `value` on begin. `posting_at`: the first posting of
  /// them.
  std::optional<uint32_t> listed_before(uint32_t value, uint32_t posting_at) const;

  template <typename T>
  static T load_at(Bytes array, size_t i) {
    return load<T>(array.data() + i * sizeof(T));
  }

  Bytes bytes_;
  ValueTag kind_ = ValueTag::kInt64;
  ColumnHeader header_{};
  Bytes values_;    // u64 each; of strings, u32 ends from 0 on
  Bytes texts_;     // of strings
  Bytes ends_;      // u32: entries before each value, and all
  Bytes postings_;  // ValuePosting, ascending by value
  Bytes listed_;    // u32 rows
};

/// One indexed field. Thread safety: immutable.
class FieldReader {
 public:
  /// REQUIRES: `block` has at least sizeof(FieldBlock) bytes.
  explicit FieldReader(Bytes block) : block_(block), header_(load<FieldBlock>(block.data())) {}

  const PostingRef& exists() const { return header_.exists; }
  const PostingRef& nulls() const { return header_.nulls; }
  const PostingRef& falses() const { return header_.falses; }
  const PostingRef& trues() const { return header_.trues; }
  /// Empty when the reference leads out of the block.
  Bytes posting(const PostingRef& ref) const;

  /// The column of `kind`, if there is one. `damaged` becomes true when it cannot be read.
  std::optional<ColumnReader> column(ValueTag kind, bool* damaged) const;

 private:
  Bytes block_;
  FieldBlock header_;
};

/// The table of fields. Thread safety: immutable.
class FieldIndexReader {
 public:
  explicit FieldIndexReader(const FieldIndex& index) : index_(index) {}

  /// Errors: corruption, see FieldIndex::open.
  static Result<FieldIndex> open(Bytes bytes, uint64_t rows);

  struct Found {
    uint64_t rows_count_max = 0;       // that have the field
    std::optional<FieldReader> field;  // none: no row has it, or its values are not here
  };
  Found find(std::string_view path) const;

  FieldRecord record(size_t i) const;
  std::string_view path(const FieldRecord& record) const;

 private:
  const FieldIndex& index_;
};

}  // namespace aionbd
