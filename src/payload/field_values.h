// The values of one field of a segment while its index is being built.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "payload/posting.h"
#include "payload/stored_field.h"

namespace aionbd {

/// Pairs of number and row, the numbers of one kind as keys that sort as they do.
/// Thread safety: single owner.
class NumberEntries {
 public:
  void add(uint64_t key, uint32_t row);
  size_t entries_count() const { return entries_.size(); }
  size_t memory_bytes() const { return entries_.capacity() * sizeof(Entry); }

  /// Appends the column; `bits_of(key)` is what is stored for a key. Nothing is kept.
  template <typename BitsOf>
  void write(const BitsOf& bits_of, std::string* out) &&;

 private:
  struct Entry {
    uint64_t key;
    uint32_t row;
  };
  std::vector<Entry> entries_;
  uint32_t rows_count_ = 0;
};

/// Pairs of string and row, each distinct string kept once.
/// Thread safety: single owner.
class StringEntries {
 public:
  /// `hash_seed`: unknown to whoever chooses the strings, so that they cannot be made to collide.
  explicit StringEntries(uint64_t hash_seed) : hash_seed_(hash_seed) {}

  void add(std::string_view text, uint32_t row);
  size_t entries_count() const { return entries_.size(); }
  size_t text_bytes() const { return texts_.size(); }
  size_t memory_bytes() const;

  /// Appends the column. Nothing is kept.
  void write(std::string* out) &&;

 private:
  struct Entry {
    uint32_t id;  // of the string, in order of first use
    uint32_t row;
  };
  std::string_view text(uint32_t id) const {
    return std::string_view(texts_).substr(begins_[id], begins_[id + 1] - begins_[id]);
  }
  uint32_t id_of(std::string_view text);
  void grow_slots();

  uint64_t hash_seed_;
  std::string texts_;
  std::vector<size_t> begins_ = {0};
  std::vector<uint32_t> hashes_;  // upper halves, by id: spares most comparisons and all rehashing
  std::vector<uint32_t> slots_;   // open addressing: id + 1, or 0; a power of two
  std::vector<Entry> entries_;
  uint32_t rows_count_ = 0;
};

/// Thread safety: single owner.
class FieldValues {
 public:
  explicit FieldValues(uint64_t hash_seed) : strings_(hash_seed) {}

  /// The value of the field in `row`. REQUIRES: rows ascend, each at most once.
  void add(const StoredValue& value, uint32_t row);
  /// Whether there is anything but the fact that rows have the field.
  bool has_elements() const { return elements_count_ > 0; }
  /// In one column, the largest.
  size_t entries_count() const;
  size_t text_bytes() const { return strings_.text_bytes(); }
  size_t memory_bytes() const;

  /// Appends the block, which begins at a multiple of kIndexAlignment of `out`. Nothing is kept.
  void write(std::string* out) &&;

 private:
  void add_element(const StoredValue& element, uint32_t row);

  RowRuns exists_;
  RowRuns nulls_;
  RowRuns falses_;
  RowRuns trues_;
  NumberEntries ints_;
  NumberEntries uints_;
  NumberEntries doubles_;
  StringEntries strings_;
  uint64_t elements_count_ = 0;
};

}  // namespace aionbd
