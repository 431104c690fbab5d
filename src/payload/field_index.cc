// Opening and reading a field index.
//
// `open` looks at the table of fields alone. Everything below is looked at when it is used, and
// never trusted: each position read from the bytes is compared with where it must lie, and whoever
// finds it elsewhere says "none", which makes the field as good as not indexed.
#include "payload/field_index.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include "payload/field_index_reader.h"

namespace aionbd {

namespace {

Status damaged(std::string_view what) {
  return corruption("field index is damaged: " + std::string(what));
}

constexpr uint64_t padded(uint64_t bytes) {
  return (bytes + kIndexAlignment - 1) / kIndexAlignment * kIndexAlignment;
}

bool lies_within(uint64_t at, uint64_t size, uint64_t bytes) {
  return at <= bytes && size <= bytes - at;
}

}  // namespace

// ---- Columns ------------------------------------------------------------------------------------

std::optional<ColumnReader> ColumnReader::open(Bytes bytes, ValueTag kind) {
  if (bytes.size() < sizeof(ColumnHeader)) return std::nullopt;
  ColumnReader column;
  column.bytes_ = bytes;
  column.kind_ = kind;
  column.header_ = load<ColumnHeader>(bytes.data());
  const ColumnHeader& header = column.header_;
  if (header.posting_entries > header.entries_count || header.rows_count > header.entries_count) {
    return std::nullopt;
  }
  // Counts have 32 bits and elements at most 24 bytes: no sum below can wrap.
  const bool strings = kind == ValueTag::kString;
  const uint64_t ends_bytes = (uint64_t{header.values_count} + 1) * sizeof(uint32_t);
  uint64_t at = sizeof(ColumnHeader);
  bool ok = true;
  const auto take = [&](uint64_t size) {
    ok = ok && lies_within(at, padded(size), bytes.size());
    const Bytes part = ok ? bytes.subspan(at, size) : Bytes();
    at += padded(size);
    return part;
  };
  column.values_ = take(strings ? ends_bytes : uint64_t{header.values_count} * sizeof(uint64_t));
  column.texts_ = take(strings ? header.text_bytes : 0);
  column.ends_ = take(ends_bytes);
  column.postings_ = take(uint64_t{header.postings_count} * sizeof(ValuePosting));
  column.listed_ = take(uint64_t{header.entries_count - header.posting_entries} * sizeof(uint32_t));
  if (!ok) return std::nullopt;
  return column;
}

std::optional<Scalar> ColumnReader::value(uint32_t i) const {
  if (kind_ == ValueTag::kString) {
    const auto begin = load_at<uint32_t>(values_, i);
    const auto end = load_at<uint32_t>(values_, size_t{i} + 1);
    if (begin > end || end > texts_.size()) return std::nullopt;
    return Scalar{kind_, 0, as_text(texts_.subspan(begin, end - begin))};
  }
  const auto bits = load_at<uint64_t>(values_, i);
  if (kind_ == ValueTag::kDouble && !std::isfinite(std::bit_cast<double>(bits))) {
    return std::nullopt;
  }
  return Scalar{kind_, bits, {}};
}

std::optional<uint32_t> ColumnReader::entries_before(uint32_t i) const {
  const auto entries = load_at<uint32_t>(ends_, i);
  if (entries > header_.entries_count) return std::nullopt;
  return entries;
}

/// The first posting of a value not below `value`.
uint32_t ColumnReader::first_posting_from(uint32_t value) const {
  uint32_t low = 0;
  uint32_t high = header_.postings_count;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (posting(middle).value < value) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

std::optional<uint32_t> ColumnReader::listed_before(uint32_t value, uint32_t posting_at) const {
  const auto entries = entries_before(value);
  const uint32_t in_postings = posting_at == header_.postings_count
                                   ? header_.posting_entries
                                   : posting(posting_at).entries_before;
  if (!entries || in_postings > *entries) return std::nullopt;
  const uint32_t listed = *entries - in_postings;
  if (listed > listed_.size() / sizeof(uint32_t)) return std::nullopt;
  return listed;
}

Bytes ColumnReader::posting_bytes(const PostingRef& ref) const {
  if (!lies_within(ref.at, ref.bytes, bytes_.size())) return {};
  return bytes_.subspan(ref.at, ref.bytes);
}

bool ColumnReader::add_rows(uint32_t first, uint32_t last, DenseRows* out) const {
  const uint32_t posting_first = first_posting_from(first);
  const uint32_t posting_last = first_posting_from(last);
  const auto begin = listed_before(first, posting_first);
  const auto end = listed_before(last, posting_last);
  if (!begin || !end) return false;
  for (size_t i = *begin; i < *end; ++i) {
    if (!out->add(load_at<uint32_t>(listed_, i))) return false;
  }
  size_t bytes_left = bytes_.size();  // postings that share bytes could take quadratic time
  for (uint32_t i = posting_first; i < posting_last; ++i) {
    const Bytes bytes = posting_bytes(posting(i).posting);
    if (bytes.size() > bytes_left || !out->add_posting(bytes)) return false;
    bytes_left -= bytes.size();
  }
  return true;
}

bool ColumnReader::append_listed(uint32_t first, uint32_t last, std::vector<uint32_t>* out) const {
  const uint32_t posting_at = first_posting_from(first);
  const auto begin = listed_before(first, posting_at);
  const auto end = listed_before(last, posting_at);
  if (first_posting_from(last) != posting_at || !begin || !end) return false;
  for (size_t i = *begin; i < *end; ++i) out->push_back(load_at<uint32_t>(listed_, i));
  return true;
}

Bytes ColumnReader::value_posting(uint32_t value) const {
  const uint32_t posting_at = first_posting_from(value);
  if (posting_at == header_.postings_count || posting(posting_at).value != value) return {};
  return posting_bytes(posting(posting_at).posting);
}

// ---- Fields -------------------------------------------------------------------------------------

Bytes FieldReader::posting(const PostingRef& ref) const {
  if (!lies_within(ref.at, ref.bytes, block_.size())) return {};
  return block_.subspan(ref.at, ref.bytes);
}

std::optional<ColumnReader> FieldReader::column(ValueTag kind, bool* damaged) const {
  const ColumnRef& ref = kind == ValueTag::kInt64    ? header_.ints
                         : kind == ValueTag::kUint64 ? header_.uints
                         : kind == ValueTag::kDouble ? header_.doubles
                                                     : header_.strings;
  if (ref.bytes == 0) return std::nullopt;
  std::optional<ColumnReader> column;
  if (lies_within(ref.at, ref.bytes, block_.size())) {
    column = ColumnReader::open(block_.subspan(ref.at, ref.bytes), kind);
  }
  if (!column) *damaged = true;
  return column;
}

// ---- The table ----------------------------------------------------------------------------------

FieldRecord FieldIndexReader::record(size_t i) const {
  return load<FieldRecord>(index_.bytes_.data() + sizeof(FieldIndexHeader) +
                           i * sizeof(FieldRecord));
}

std::string_view FieldIndexReader::path(const FieldRecord& record) const {
  const size_t paths_at = sizeof(FieldIndexHeader) + index_.fields_count_ * sizeof(FieldRecord);
  return as_text(index_.bytes_.subspan(paths_at + record.path_at, record.path_bytes));
}

Result<FieldIndex> FieldIndexReader::open(Bytes bytes, uint64_t rows) {
  if (bytes.size() < sizeof(FieldIndexHeader)) return damaged("cut short");
  const auto header = load<FieldIndexHeader>(bytes.data());
  if (header.magic != kFieldIndexMagic) return damaged("magic");
  if (header.version != kFieldIndexVersion) return damaged("version");
  if ((header.flags & ~kPathsComplete) != 0) return damaged("flags");
  for (const uint64_t word : header.reserved) {
    if (word != 0) return damaged("reserved bytes");
  }
  if (header.bytes != bytes.size()) return damaged("size");
  if (header.rows != rows || rows > UINT32_MAX) return damaged("number of rows");
  const uint64_t paths_at =
      sizeof(FieldIndexHeader) + uint64_t{header.fields_count} * sizeof(FieldRecord);
  if (!lies_within(paths_at, header.path_bytes, bytes.size())) return damaged("table of fields");
  FieldIndex index(bytes, rows);
  index.fields_count_ = header.fields_count;
  index.paths_complete_ = (header.flags & kPathsComplete) != 0;
  const FieldIndexReader reader(index);
  const uint64_t blocks_at = padded(paths_at + header.path_bytes);
  std::string_view previous;
  for (size_t i = 0; i < index.fields_count_; ++i) {
    const FieldRecord record = reader.record(i);
    if (!lies_within(record.path_at, record.path_bytes, header.path_bytes)) return damaged("path");
    const std::string_view path = reader.path(record);
    if (i > 0 && path <= previous) return damaged("order of paths");
    previous = path;
    if (record.rows_count > rows) return damaged("rows of a field");
    if (record.block_at == 0) continue;
    if (record.block_at < blocks_at || record.block_at % kIndexAlignment != 0 ||
        record.block_bytes < sizeof(FieldBlock) ||
        !lies_within(record.block_at, record.block_bytes, bytes.size())) {
      return damaged("place of a field");
    }
  }
  return index;
}

FieldIndexReader::Found FieldIndexReader::find(std::string_view wanted) const {
  size_t low = 0;
  size_t high = index_.fields_count_;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    const FieldRecord candidate = record(middle);
    const std::string_view candidate_path = path(candidate);
    if (candidate_path == wanted) {
      Found found;
      found.rows_count_max = candidate.rows_count;
      if (candidate.block_at != 0) {
        found.field.emplace(index_.bytes_.subspan(candidate.block_at, candidate.block_bytes));
      }
      return found;
    }
    if (candidate_path < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  Found found;
  found.rows_count_max = index_.paths_complete_ ? 0 : index_.rows_;
  return found;
}

Result<FieldIndex> FieldIndex::open(Bytes bytes, uint64_t rows) {
  return FieldIndexReader::open(bytes, rows);
}

FieldIndex::Field FieldIndex::field(size_t i) const {
  const FieldIndexReader reader(*this);
  const FieldRecord record = reader.record(i);
  return {reader.path(record), record.block_at != 0, record.rows_count, record.block_bytes};
}

}  // namespace aionbd
