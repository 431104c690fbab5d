// Reading the portable Roaring format ourselves, container by container: to check it before the
// library trusts it, and to add postings into one dense bitset, which needs neither allocation nor
// counts. The specification is the "RoaringFormatSpec" document of the Roaring project.
#include "payload/posting.h"

#include <roaring/roaring.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "payload/payload_layout.h"

namespace aionbd {

namespace {

constexpr uint32_t kCookie = 12346;          // no runs; the number of containers follows
constexpr uint32_t kCookieWithRuns = 12347;  // and the number of containers - 1 above it
constexpr size_t kOffsetsAlwaysFrom = 4;     // with runs, fewer containers have no offsets
constexpr uint32_t kArrayRowsMax = 4096;     // more rows than this are stored as a bitset
constexpr size_t kChunkWords = kChunkRows / 64;
constexpr size_t kChunkBytes = kChunkRows / 8;

enum class ContainerKind : uint8_t { kArray, kBitset, kRuns };

/// A container of a posting, in place.
struct Container {
  ContainerKind kind = ContainerKind::kArray;
  uint32_t key = 0;    // upper 16 bits of its rows
  uint32_t count = 0;  // of rows, 1..65536
  uint32_t runs_count = 0;
  const std::byte* body = nullptr;  // u16[count], u64[1024], or (u16 first, u16 length - 1)[runs]

  uint32_t low(size_t i) const { return load<uint16_t>(body + 2 * i); }
  uint64_t word(size_t i) const { return load<uint64_t>(body + 8 * i); }
};

/// The containers of a posting, within its bytes, ascending by key. Thread safety: single owner.
class PostingWalk {
 public:
  explicit PostingWalk(Bytes posting) : decoder_(posting) {
    const auto cookie = decoder_.get<uint32_t>();
    const bool with_runs = (cookie & 0xFFFF) == kCookieWithRuns;
    if (with_runs) {
      containers_count_ = (cookie >> 16) + 1;
      run_flags_ = decoder_.get_raw((containers_count_ + 7) / 8);
    } else {
      if (cookie != kCookie) decoder_.fail();
      containers_count_ = decoder_.get<uint32_t>();
    }
    descriptors_ = decoder_.get_raw(4 * containers_count_);  // 32 bits times 4 fit size_t
    if (!with_runs || containers_count_ >= kOffsetsAlwaysFrom) {
      offsets_ = decoder_.get_raw(4 * containers_count_);
    }
  }

  /// False at the end, or when the posting is damaged.
  bool next(Container* out) {
    if (!decoder_.ok() || at_ == containers_count_) return false;
    out->key = load<uint16_t>(descriptors_.data() + 4 * at_);
    if (out->key < key_min_) decoder_.fail();
    key_min_ = out->key + 1;
    out->count = uint32_t{load<uint16_t>(descriptors_.data() + 4 * at_ + 2)} + 1;
    if (!offsets_.empty() && load<uint32_t>(offsets_.data() + 4 * at_) != decoder_.position()) {
      decoder_.fail();
    }
    const bool is_runs =
        !run_flags_.empty() && ((static_cast<unsigned>(run_flags_[at_ / 8]) >> (at_ % 8)) & 1) != 0;
    if (is_runs) {
      out->kind = ContainerKind::kRuns;
      out->runs_count = decoder_.get<uint16_t>();
      out->body = decoder_.get_raw(size_t{4} * out->runs_count).data();
    } else if (out->count > kArrayRowsMax) {
      out->kind = ContainerKind::kBitset;
      out->body = decoder_.get_raw(kChunkBytes).data();
    } else {
      out->kind = ContainerKind::kArray;
      out->body = decoder_.get_raw(size_t{2} * out->count).data();
    }
    ++at_;
    return decoder_.ok();
  }

  /// Whether the bytes held exactly the containers read.
  bool finished() const { return decoder_.finished() && at_ == containers_count_; }

 private:
  Decoder decoder_;
  size_t containers_count_ = 0;
  size_t at_ = 0;
  uint32_t key_min_ = 0;
  Bytes run_flags_;
  Bytes descriptors_;
  Bytes offsets_;
};

/// A carry-save adder: `high` and `low` become the two digits of the sum of three bits, 64 times.
void add_bits(uint64_t* high, uint64_t* low, uint64_t b, uint64_t c) {
  const uint64_t u = *low ^ b;
  *high = (*low & b) | (u & c);
  *low = u ^ c;
}

/// Ones in the words of a chunk. The baseline CPU has no instruction for it, and one word at a time
/// costs 4.5 ns; adding eight words before counting (Harley and Seal; see Mula, Kurz, Lemire,
/// "Faster population counts using AVX2 instructions", 2018) brings it to 0.9 ns.
template <typename Word>
uint32_t count_chunk(const Word& word) {
  uint64_t ones = 0;
  uint64_t twos = 0;
  uint64_t fours = 0;
  size_t eights_total = 0;
  for (size_t i = 0; i < kChunkWords; i += 8) {
    std::array<uint64_t, 4> pairs;
    for (size_t j = 0; j < pairs.size(); ++j) {
      add_bits(&pairs[j], &ones, word(i + 2 * j), word(i + 2 * j + 1));
    }
    uint64_t fours_a = 0;
    uint64_t fours_b = 0;
    add_bits(&fours_a, &twos, pairs[0], pairs[1]);
    add_bits(&fours_b, &twos, pairs[2], pairs[3]);
    uint64_t eights = 0;
    add_bits(&eights, &fours, fours_a, fours_b);
    eights_total += static_cast<size_t>(std::popcount(eights));
  }
  return static_cast<uint32_t>(8 * eights_total + 4 * static_cast<size_t>(std::popcount(fours)) +
                               2 * static_cast<size_t>(std::popcount(twos)) +
                               static_cast<size_t>(std::popcount(ones)));
}

/// Whether `container` is what the library may be given: sorted, counted, below `rows`.
bool check_container(const Container& container, uint64_t rows) {
  const uint64_t base = uint64_t{container.key} * kChunkRows;
  if (base >= rows) return false;
  const uint64_t limit = std::min(rows - base, kChunkRows);
  switch (container.kind) {
    case ContainerKind::kArray: {
      bool ascending = true;
      uint32_t last = container.low(0);
      for (size_t i = 1; i < container.count; ++i) {
        const uint32_t low = container.low(i);
        ascending &= low > last;
        last = low;
      }
      return ascending && last < limit;
    }
    case ContainerKind::kBitset: {
      if (count_chunk([&](size_t i) { return container.word(i); }) != container.count) return false;
      for (uint64_t bit = limit; bit < kChunkRows; bit = (bit / 64 + 1) * 64) {
        if ((container.word(bit / 64) >> (bit % 64)) != 0) return false;
      }
      return true;
    }
    case ContainerKind::kRuns: break;
  }
  uint64_t next = 0;  // the first place a run may begin
  uint64_t total = 0;
  for (size_t i = 0; i < container.runs_count; ++i) {
    const uint64_t first = container.low(2 * i);
    const uint64_t length = uint64_t{container.low(2 * i + 1)} + 1;
    if (first < next || first + length > limit) return false;
    next = first + length;
    total += length;
  }
  return total == container.count;
}

void set_range(uint64_t* words, uint64_t first, uint64_t end) {
  while (first < end) {
    const uint64_t bit = first % 64;
    const uint64_t length = std::min(end - first, 64 - bit);
    words[first / 64] |= (~uint64_t{0} >> (64 - length)) << bit;
    first += length;
  }
}

/// Sets the bits of `container` in `words`, whole chunks; false when a row is not below `rows`.
bool add_container(const Container& container, uint64_t rows, uint64_t* words) {
  const uint64_t base = uint64_t{container.key} * kChunkRows;
  if (base >= rows) return false;
  uint64_t* const chunk = words + base / 64;
  switch (container.kind) {
    case ContainerKind::kArray:
      for (size_t i = 0; i < container.count; ++i) {
        const uint32_t low = container.low(i);
        chunk[low / 64] |= uint64_t{1} << (low % 64);
      }
      break;
    case ContainerKind::kBitset:
      for (size_t i = 0; i < kChunkWords; ++i) chunk[i] |= container.word(i);
      break;
    case ContainerKind::kRuns:
      for (size_t i = 0; i < container.runs_count; ++i) {
        const uint64_t first = container.low(2 * i);
        const uint64_t end = first + container.low(2 * i + 1) + 1;
        if (end > kChunkRows) return false;
        set_range(chunk, first, end);
      }
      break;
  }
  for (uint64_t bit = rows - base; bit < kChunkRows; bit = (bit / 64 + 1) * 64) {
    if ((chunk[bit / 64] >> (bit % 64)) != 0) return false;
  }
  return true;
}

std::string serialize(const roaring_bitmap_t* bitmap) {
  std::string out(roaring_bitmap_portable_size_in_bytes(bitmap), '\0');
  roaring_bitmap_portable_serialize(bitmap, out.data());
  return out;
}

roaring_bitmap_t* deserialize(const void* data, size_t size) {
  return roaring_bitmap_portable_deserialize_safe(static_cast<const char*>(data), size);
}

}  // namespace

RowSet RowRuns::to_set() const {
  // Long runs are cheap as ranges, short ones as rows: the library adds 8 ns per row, 100 per
  // range.
  constexpr uint32_t kRangeRowsMin = 16;
  roaring_bitmap_t* const bitmap = roaring_bitmap_create();
  CHECK_TRUE(bitmap != nullptr);
  std::array<uint32_t, 4096> block;
  size_t filled = 0;
  const auto flush = [&] {
    if (filled > 0) roaring_bitmap_add_many(bitmap, filled, block.data());
    filled = 0;
  };
  for (const Run& run : runs_) {
    if (run.last - run.first >= kRangeRowsMin) {
      flush();
      roaring_bitmap_add_range_closed(bitmap, run.first, run.last);
      continue;
    }
    if (filled + kRangeRowsMin > block.size()) flush();
    for (uint32_t row = run.first; row <= run.last; ++row) block[filled++] = row;
  }
  flush();
  return RowSetAccess::adopt(bitmap);
}

std::string write_posting(RowSet set) {
  CHECK_TRUE(!set.empty());
  roaring_bitmap_t* const bitmap = RowSetAccess::bitmap(&set);
  roaring_bitmap_run_optimize(bitmap);
  return serialize(bitmap);
}

std::optional<RowSet> read_posting(Bytes posting, uint64_t rows, uint64_t count) {
  PostingWalk walk(posting);
  Container container;
  uint64_t total = 0;
  while (walk.next(&container)) {
    if (!check_container(container, rows)) return std::nullopt;
    total += container.count;
  }
  if (!walk.finished() || total != count) return std::nullopt;
  roaring_bitmap_t* const bitmap = deserialize(posting.data(), posting.size());
  if (bitmap == nullptr) return std::nullopt;
  return RowSetAccess::adopt(bitmap);
}

void write_bitset(const RowSet& set, std::span<uint64_t> words) {
  std::fill(words.begin(), words.end(), 0);
  if (set.empty()) return;
  // The library gives rows one by one at 3 ns each; its portable form gives whole chunks.
  const std::string posting = serialize(RowSetAccess::bitmap(set));
  PostingWalk walk(as_bytes_of(posting));
  Container container;
  std::array<uint64_t, kChunkWords> chunk;
  while (walk.next(&container)) {
    const size_t begin = container.key * kChunkWords;
    if (begin >= words.size()) break;
    chunk.fill(0);
    container.key = 0;
    add_container(container, kChunkRows, chunk.data());
    const size_t count = std::min(kChunkWords, words.size() - begin);
    std::memcpy(words.data() + begin, chunk.data(), count * sizeof(uint64_t));
  }
}

DenseRows::DenseRows(uint64_t rows)
    : rows_(rows), words_((rows + kChunkRows - 1) / kChunkRows * kChunkWords) {}

bool DenseRows::add_posting(Bytes posting) {
  PostingWalk walk(posting);
  Container container;
  while (walk.next(&container)) {
    if (!add_container(container, rows_, words_.data())) return false;
  }
  return walk.finished();
}

RowSet DenseRows::to_set() const {
  // The library is handed the chunks in its portable form: adding rows one by one costs 8 ns each,
  // this a copy of the chunk.
  const size_t chunks = words_.size() / kChunkWords;
  std::vector<uint32_t> counts(chunks);
  size_t containers_count = 0;
  for (size_t c = 0; c < chunks; ++c) {
    const uint64_t* const chunk = words_.data() + c * kChunkWords;
    counts[c] = count_chunk([&](size_t i) { return chunk[i]; });
    containers_count += counts[c] > 0 ? 1 : 0;
  }
  if (containers_count == 0) return {};
  std::string bytes;
  Encoder out(&bytes);
  out.put(kCookie);
  out.put(static_cast<uint32_t>(containers_count));
  for (size_t c = 0; c < chunks; ++c) {
    if (counts[c] == 0) continue;
    out.put(static_cast<uint16_t>(c));
    out.put(static_cast<uint16_t>(counts[c] - 1));
  }
  size_t offset = bytes.size() + 4 * containers_count;
  for (const uint32_t count : counts) {
    if (count == 0) continue;
    out.put(static_cast<uint32_t>(offset));
    offset += count > kArrayRowsMax ? kChunkBytes : size_t{2} * count;
  }
  bytes.reserve(offset);
  std::array<uint16_t, kArrayRowsMax> lows;
  for (size_t c = 0; c < chunks; ++c) {
    const uint64_t* const chunk = words_.data() + c * kChunkWords;
    if (counts[c] > kArrayRowsMax) {
      out.put_raw(chunk, kChunkBytes);
    } else if (counts[c] > 0) {
      size_t filled = 0;
      for (size_t i = 0; i < kChunkWords; ++i) {
        for (uint64_t word = chunk[i]; word != 0; word &= word - 1) {
          lows[filled++] = static_cast<uint16_t>(64 * i + std::countr_zero(word));
        }
      }
      out.put_raw(lows.data(), 2 * filled);
    }
  }
  return RowSetAccess::adopt(deserialize(bytes.data(), bytes.size()));
}

}  // namespace aionbd
