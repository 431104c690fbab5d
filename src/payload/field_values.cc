// Gathering the values of a field, and writing them as the block of an index.
//
// Pairs of value and row are appended as they come and sorted once at the end; keeping them sorted
// all along (a tree, a bitmap per value) was estimated at several cache misses per row, appending
// costs none. Strings are replaced by numbers as they come, because they repeat.
#include "payload/field_values.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "base/checksum.h"
#include "payload/field_index_layout.h"

namespace aionbd {

namespace {

constexpr uint64_t kSignBit = uint64_t{1} << 63;

/// Below this a posting cannot be smaller than a list of rows, nor much faster to read.
constexpr size_t kPostingRowsMin = 64;

template <typename T>
void put_struct(const T& value, std::string* out) {
  static_assert(std::has_unique_object_representations_v<T>);
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename T>
void put_array(const std::vector<T>& values, std::string* out) {
  out->append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  Encoder(out).pad_to(kIndexAlignment);
}

/// Collects the rows of the values of a column, in the order of the values.
/// Thread safety: single owner.
class ColumnRows {
 public:
  /// The rows of the next value. REQUIRES: ascending, at least one.
  void add(std::span<const uint32_t> rows) {
    const auto count = static_cast<uint32_t>(rows.size());
    entries_count_ += count;
    ends_.push_back(entries_count_);
    if (rows.size() >= kPostingRowsMin) {
      const std::string posting = write_posting(RowSet::of(rows));
      if (posting.size() + sizeof(ValuePosting) < rows.size_bytes()) {
        postings_.push_back(
            {static_cast<uint32_t>(ends_.size() - 2),
             posting_entries_,
             {posting_bytes_.size(), static_cast<uint32_t>(posting.size()), count}});
        posting_entries_ += count;
        posting_bytes_ += posting;
        return;
      }
    }
    listed_.insert(listed_.end(), rows.begin(), rows.end());
  }

  /// Appends the column around `values`, which is padded.
  void write(std::string_view values, size_t text_bytes, uint32_t rows_count, std::string* out) {
    const size_t begin = out->size();
    put_struct(ColumnHeader{static_cast<uint32_t>(ends_.size() - 1), entries_count_, rows_count,
                            static_cast<uint32_t>(postings_.size()), posting_entries_,
                            static_cast<uint32_t>(text_bytes)},
               out);
    out->append(values);
    put_array(ends_, out);
    const size_t listed_bytes = (listed_.size() * sizeof(uint32_t) + kIndexAlignment - 1) /
                                kIndexAlignment * kIndexAlignment;
    const size_t posting_bytes_at =
        out->size() - begin + postings_.size() * sizeof(ValuePosting) + listed_bytes;
    for (ValuePosting& value : postings_) value.posting.at += posting_bytes_at;
    put_array(postings_, out);
    put_array(listed_, out);
    out->append(posting_bytes_);
    Encoder(out).pad_to(kIndexAlignment);
  }

 private:
  std::vector<uint32_t> ends_ = {0};
  std::vector<ValuePosting> postings_;
  std::vector<uint32_t> listed_;
  std::string posting_bytes_;
  uint32_t entries_count_ = 0;
  uint32_t posting_entries_ = 0;
};

/// Order-preserving: negative doubles are turned around, the others put above them.
uint64_t key_of_double(uint64_t bits) {
  if (bits == kSignBit) bits = 0;  // -0.0 equals 0.0
  return (bits & kSignBit) != 0 ? ~bits : bits | kSignBit;
}

uint64_t double_bits_of(uint64_t key) {
  return (key & kSignBit) != 0 ? key & ~kSignBit : ~key;
}

}  // namespace

// ---- Numbers ------------------------------------------------------------------------------------

void NumberEntries::add(uint64_t key, uint32_t row) {
  if (entries_.empty() || entries_.back().row != row) ++rows_count_;
  entries_.push_back({key, row});
}

template <typename BitsOf>
void NumberEntries::write(const BitsOf& bits_of, std::string* out) && {
  const auto before = [](const Entry& a, const Entry& b) {
    return a.key != b.key ? a.key < b.key : a.row < b.row;
  };
  if (!std::is_sorted(entries_.begin(), entries_.end(), before)) {
    std::sort(entries_.begin(), entries_.end(), before);
  }
  ColumnRows column;
  std::vector<uint64_t> values;
  std::vector<uint32_t> rows;
  for (size_t i = 0; i < entries_.size();) {
    const uint64_t key = entries_[i].key;
    rows.clear();
    for (; i < entries_.size() && entries_[i].key == key; ++i) {
      if (rows.empty() || rows.back() != entries_[i].row) rows.push_back(entries_[i].row);
    }
    values.push_back(bits_of(key));
    column.add(rows);
  }
  entries_ = {};
  std::string value_bytes;
  put_array(values, &value_bytes);
  column.write(value_bytes, 0, rows_count_, out);
}

// ---- Strings ------------------------------------------------------------------------------------

void StringEntries::add(std::string_view text, uint32_t row) {
  if (entries_.empty() || entries_.back().row != row) ++rows_count_;
  entries_.push_back({id_of(text), row});
}

size_t StringEntries::memory_bytes() const {
  return texts_.capacity() + begins_.capacity() * sizeof(size_t) +
         (hashes_.capacity() + slots_.capacity()) * sizeof(uint32_t) +
         entries_.capacity() * sizeof(Entry);
}

uint32_t StringEntries::id_of(std::string_view wanted) {
  if (!entries_.empty() && text(entries_.back().id) == wanted) return entries_.back().id;
  constexpr size_t kSlotsPerIdMin = 2;
  if ((hashes_.size() + 1) * kSlotsPerIdMin > slots_.size()) grow_slots();
  const auto hash = static_cast<uint32_t>(checksum(as_bytes_of(wanted), hash_seed_) >> 32);
  size_t at = hash & (slots_.size() - 1);
  for (; slots_[at] != 0; at = (at + 1) & (slots_.size() - 1)) {
    const uint32_t id = slots_[at] - 1;
    if (hashes_[id] == hash && text(id) == wanted) return id;
  }
  const auto id = static_cast<uint32_t>(hashes_.size());
  slots_[at] = id + 1;
  hashes_.push_back(hash);
  texts_.append(wanted);
  begins_.push_back(texts_.size());
  return id;
}

void StringEntries::grow_slots() {
  slots_.assign(std::max<size_t>(16, slots_.size() * 2), 0);
  for (uint32_t id = 0; id < hashes_.size(); ++id) {
    size_t at = hashes_[id] & (slots_.size() - 1);
    while (slots_[at] != 0) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = id + 1;
  }
}

void StringEntries::write(std::string* out) && {
  const size_t values_count = hashes_.size();
  std::vector<uint32_t> order(values_count);  // id by rank
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return text(a) < text(b); });
  // Counting sort of the entries by id; rows of one id stay ascending, repeated ones are dropped.
  std::vector<size_t> begins(values_count + 1);
  for (const Entry& entry : entries_) ++begins[entry.id + 1];
  std::partial_sum(begins.begin(), begins.end(), begins.begin());
  std::vector<size_t> ends(begins.begin(), begins.end() - 1);
  std::vector<uint32_t> rows(entries_.size());
  for (const Entry& entry : entries_) {
    size_t& end = ends[entry.id];
    if (end == begins[entry.id] || rows[end - 1] != entry.row) rows[end++] = entry.row;
  }
  entries_ = {};
  ColumnRows column;
  std::vector<uint32_t> text_ends = {0};
  for (const uint32_t id : order) {
    column.add(std::span(rows).subspan(begins[id], ends[id] - begins[id]));
    text_ends.push_back(text_ends.back() + static_cast<uint32_t>(text(id).size()));
  }
  std::string value_bytes;
  put_array(text_ends, &value_bytes);
  for (const uint32_t id : order) value_bytes.append(text(id));
  Encoder(&value_bytes).pad_to(kIndexAlignment);
  column.write(value_bytes, texts_.size(), rows_count_, out);
}

// ---- A field ------------------------------------------------------------------------------------

void FieldValues::add(const StoredValue& value, uint32_t row) {
  exists_.add(row);
  if (value.tag == ValueTag::kObject) return;
  if (value.tag != ValueTag::kArray) {
    add_element(value, row);
    return;
  }
  const std::byte* at = value.body.data();
  const std::byte* const end = at + value.body.size();
  while (at < end) {
    const StoredValue element = read_value(at);
    if (is_scalar(element.tag)) add_element(element, row);
  }
}

void FieldValues::add_element(const StoredValue& element, uint32_t row) {
  ++elements_count_;
  switch (element.tag) {
    case ValueTag::kNull: nulls_.add(row); break;
    case ValueTag::kFalse: falses_.add(row); break;
    case ValueTag::kTrue: trues_.add(row); break;
    case ValueTag::kInt64: ints_.add(load<uint64_t>(element.body.data()) ^ kSignBit, row); break;
    case ValueTag::kUint64: uints_.add(load<uint64_t>(element.body.data()), row); break;
    case ValueTag::kDouble:
      doubles_.add(key_of_double(load<uint64_t>(element.body.data())), row);
      break;
    case ValueTag::kString: strings_.add(as_text(element.body), row); break;
    case ValueTag::kArray:
    case ValueTag::kObject: break;
  }
}

size_t FieldValues::entries_count() const {
  return std::max({ints_.entries_count(), uints_.entries_count(), doubles_.entries_count(),
                   strings_.entries_count()});
}

size_t FieldValues::memory_bytes() const {
  return sizeof(*this) + exists_.memory_bytes() + nulls_.memory_bytes() + falses_.memory_bytes() +
         trues_.memory_bytes() + ints_.memory_bytes() + uints_.memory_bytes() +
         doubles_.memory_bytes() + strings_.memory_bytes();
}

void FieldValues::write(std::string* out) && {
  const size_t begin = out->size();
  FieldBlock block{};
  put_struct(block, out);
  const auto put_posting = [&](const RowRuns& runs, PostingRef* ref) {
    RowSet set = runs.to_set();
    if (set.empty()) return;
    ref->at = out->size() - begin;
    ref->count = static_cast<uint32_t>(set.count());
    const std::string posting = write_posting(std::move(set));
    ref->bytes = static_cast<uint32_t>(posting.size());
    out->append(posting);
    Encoder(out).pad_to(kIndexAlignment);
  };
  put_posting(exists_, &block.exists);
  put_posting(nulls_, &block.nulls);
  put_posting(falses_, &block.falses);
  put_posting(trues_, &block.trues);
  const auto put_column = [&](auto& entries, ColumnRef* ref, const auto&... bits_of) {
    if (entries.entries_count() == 0) return;
    ref->at = out->size() - begin;
    std::move(entries).write(bits_of..., out);
    ref->bytes = out->size() - begin - ref->at;
  };
  put_column(ints_, &block.ints, [](uint64_t key) { return key ^ kSignBit; });
  put_column(uints_, &block.uints, [](uint64_t key) { return key; });
  put_column(doubles_, &block.doubles, double_bits_of);
  put_column(strings_, &block.strings);
  std::memcpy(out->data() + begin, &block, sizeof(block));
}

}  // namespace aionbd
