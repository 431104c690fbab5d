// Fuzz target: any bytes as a segment file. Nothing may be read out of bounds or allocated beyond
// reason, and what is given out must have passed its checksum.
//
// Input: one byte of choices, then the file. With bit 0 header, tables and trailer are made
// consistent first.
#include <cstdint>
#include <cstring>
#include <string>

#include "base/check.h"
#include "storage/format.h"
#include "storage/segment_file.h"

namespace aionbd {
namespace {

constexpr uint64_t kStore = 42;
constexpr SegmentId kId = 7;

class TextImage final : public MappedFile {
 public:
  explicit TextImage(std::string text) : text_(std::move(text)) {}
  Bytes bytes() const override { return as_bytes_of(text_); }

 private:
  const std::string text_;
};

template <typename T>
void put(std::string* out, size_t at, const T& value) {
  std::memcpy(out->data() + at, &value, sizeof(T));
}

void repair(std::string* file) {
  if (file->size() < sizeof(SegmentHeader) + sizeof(SegmentTrailer)) return;
  SegmentHeader header;
  header.store_id = kStore;
  header.segment_id = kId;
  header.checksum = checksum_of(header, checksum_seed(kStore, kId, kSeedSegmentHeader));
  put(file, 0, header);
  const size_t at = file->size() - sizeof(SegmentTrailer);
  auto trailer = read_as<SegmentTrailer>(as_bytes_of(*file).subspan(at));
  trailer.magic = kTrailerMagic;
  trailer.version = kFormatVersion;
  trailer.store_id = kStore;
  trailer.segment_id = kId;
  trailer.file_bytes = file->size();
  if (trailer.data_bytes <= at) {
    const Bytes tables = as_bytes_of(*file).subspan(trailer.data_bytes, at - trailer.data_bytes);
    trailer.tables_checksum = checksum(tables, checksum_seed(kStore, kId, kSeedTables));
  }
  trailer.checksum = checksum_of(trailer, checksum_seed(kStore, kId, kSeedTrailer));
  put(file, at, trailer);
}

}  // namespace
}  // namespace aionbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace aionbd;
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if ((data[0] & 1) != 0) repair(&bytes);
  auto file =
      open_segment_image(std::make_unique<TextImage>(bytes), "f", kStore, kId, std::nullopt);
  if (!file.has_value()) {
    CHECK_TRUE(file.error().code() == Code::kCorruption);
    return 0;
  }
  bool well = true;
  uint64_t sum = 0;
  for (SectionTag tag = 0; tag < 16; ++tag) {
    const auto section = (*file)->section(tag);
    CHECK_EQ(section.has_value(), (*file)->has_section(tag));
    if (!section.has_value()) continue;
    const auto all = section->all();
    if (!all.has_value()) {
      CHECK_TRUE(all.error().code() == Code::kCorruption);
      well = false;
      continue;
    }
    for (const std::byte b : *all) sum += static_cast<uint64_t>(b);
  }
  if (!well) CHECK_TRUE(!(*file)->verify().ok());
  return sum == UINT64_MAX ? 1 : 0;  // keeps the reads
}
