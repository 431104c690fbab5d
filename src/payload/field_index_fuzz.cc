// The first byte chooses: either the rest draws payloads and a filter, and the index must answer as
// the program over payloads does; or the rest is an index from a hostile disk, and every answer
// must at least be rows of the segment.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/rng.h"
#include "payload/field_index.h"
#include "payload/field_index_layout.h"
#include "payload/filter.h"
#include "payload/filter_model.h"
#include "payload/payload.h"

namespace aionbd {
namespace {

/// Bytes at a multiple of 8, as in a mapped file.
class AlignedBytes {
 public:
  AlignedBytes(const void* data, size_t size) : words_(size / sizeof(uint64_t) + 1), size_(size) {
    if (size > 0) std::memcpy(words_.data(), data, size);
  }
  std::byte* data() { return reinterpret_cast<std::byte*>(words_.data()); }
  Bytes bytes() const { return std::as_bytes(std::span(words_)).first(size_); }

 private:
  std::vector<uint64_t> words_;
  size_t size_;
};

void compare_with_program(const uint8_t* data, size_t size) {
  constexpr size_t kBytesMax = 4096;  // enough for any filter the generator makes in good time
  constexpr size_t kFilterDepth = 4;
  constexpr size_t kPayloadDepth = 3;
  size_t at = 0;
  const Draw draw = [&](uint64_t bound) -> uint64_t {
    return at < size && at < kBytesMax ? data[at++] % bound : 0;
  };
  const auto filter = CompiledFilter::compile(random_filter(draw, kFilterDepth));
  CHECK_TRUE(filter.has_value());
  FieldIndexOptions options;
  const bool indexed_all = draw(2) == 0;
  if (!indexed_all) options.fields = {"a", "b.c", "a.b.c"};
  FieldIndexBuilder builder(options);
  std::vector<uint32_t> wanted;
  do {
    const auto payload = encode_payload(random_object(draw, kPayloadDepth));
    CHECK_TRUE(payload.has_value());
    if (filter->matches(as_bytes_of(*payload))) {
      wanted.push_back(static_cast<uint32_t>(builder.rows_count()));
    }
    builder.add(as_bytes_of(*payload));
  } while (at < size && at < kBytesMax);
  const uint64_t rows = builder.rows_count();
  const std::string serialized = std::move(builder).finish();
  const AlignedBytes aligned(serialized.data(), serialized.size());
  const auto index = FieldIndex::open(aligned.bytes(), rows);
  CHECK_TRUE(index.has_value());
  const IndexAnswer answer = filter->evaluate(*index);
  std::vector<uint32_t> upper;
  answer.upper.for_each([&](uint32_t row) { upper.push_back(row); });
  CHECK_TRUE(std::includes(upper.begin(), upper.end(), wanted.begin(), wanted.end()));
  CHECK_TRUE(!answer.exact || upper == wanted);
  CHECK_TRUE(answer.exact || !indexed_all);
  const CountBounds bounds = filter->estimate(*index);
  CHECK_LE(bounds.lower, wanted.size());
  CHECK_GE(bounds.upper, wanted.size());
}

void read_hostile_index(const uint8_t* data, size_t size) {
  constexpr uint64_t kRowsMax = 80000;  // the engine's number, so not hostile: two chunks do
  constexpr size_t kFilters = 24;
  constexpr size_t kFilterDepth = 1;
  static const auto* const filters = [] {
    auto* const out = std::make_unique<std::vector<CompiledFilter>>().release();
    Rng rng(1);
    const Draw draw = [&](uint64_t bound) { return rng.below(bound); };
    for (size_t i = 0; i < kFilters; ++i) {
      out->push_back(*CompiledFilter::compile(random_filter(draw, kFilterDepth)));
    }
    return out;
  }();
  AlignedBytes aligned(data, size);
  uint64_t rows = 0;
  if (size >= sizeof(FieldIndexHeader)) {
    // Spare the fuzzer the two numbers that are known from elsewhere.
    FieldIndexHeader header;
    std::memcpy(&header, aligned.data(), sizeof(header));
    header.bytes = size;
    header.rows %= kRowsMax;
    rows = header.rows;
    std::memcpy(aligned.data(), &header, sizeof(header));
  }
  const auto index = FieldIndex::open(aligned.bytes(), rows);
  if (!index) return;
  for (size_t i = 0; i < index->fields_count(); ++i) index->field(i);
  for (const CompiledFilter& filter : *filters) {
    const IndexAnswer answer = filter.evaluate(*index);
    uint64_t count = 0;
    answer.upper.for_each([&](uint32_t row) {
      CHECK_LT(row, rows);
      ++count;
    });
    CHECK_EQ(count, answer.upper.count());
    CHECK_LE(filter.estimate(*index).upper, rows);
  }
}

}  // namespace
}  // namespace aionbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  if (data[0] % 2 == 0) {
    aionbd::compare_with_program(data + 1, size - 1);
  } else {
    aionbd::read_hostile_index(data + 1, size - 1);
  }
  return 0;
}
