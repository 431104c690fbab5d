// Segment files: what is written is read, and no damaged byte is.
#include "storage/segment_file.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <new>

#include "base/rng.h"
#include "io/sim_file_system.h"
#include "storage/format.h"

namespace aionbd {
namespace {

constexpr uint64_t kStore = 77;

std::string noise(size_t size, uint64_t seed) {
  Rng rng(seed);
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(rng.next());
  return out;
}

class SegmentTest : public ::testing::Test {
 protected:
  SegmentTest() { EXPECT_TRUE(files_.make_dirs("d").ok()); }

  using Sections = std::vector<std::pair<SectionTag, std::string>>;

  std::shared_ptr<SegmentFile> write(const Sections& sections, size_t piece, SegmentId id = 5) {
    auto writer = create_segment_file(&files_, "d", kStore, id, nullptr).value();
    for (const auto& [tag, text] : sections) {
      EXPECT_TRUE(writer->begin_section(tag).ok());
      for (size_t at = 0; at < text.size(); at += piece) {
        EXPECT_TRUE(writer->append(as_bytes_of(std::string_view(text).substr(at, piece))).ok());
      }
    }
    return writer->finish().value();
  }
  static void expect_content(const SegmentFile& file, const Sections& sections) {
    for (const auto& [tag, text] : sections) {
      const Section section = file.section(tag).value();
      ASSERT_EQ(section.size(), text.size());
      const Bytes all = section.all().value();
      ASSERT_TRUE(as_text(all) == text);
      if (!all.empty()) {
        ASSERT_EQ(reinterpret_cast<uintptr_t>(all.data()) % kSectionAlignment, 0u);
      }
    }
  }
  std::string bytes() { return files_.read("d/" + segment_name(5), 1 << 26).value(); }
  Result<std::shared_ptr<SegmentFile>> reopen(std::optional<SegmentStamp> stamp = std::nullopt) {
    return open_segment_file(&files_, "d", kStore, 5, stamp);
  }

  SimFileSystem files_;
};

TEST_F(SegmentTest, RoundTripOfAllSizesAndPieces) {
  const Sections sections = {
      {9, ""},
      {1, "x"},
      {2, noise(63, 1)},
      {3, noise(64, 2)},
      {4, noise(kBlockBytes, 3)},
      {5, noise(3 * 1024 * 1024 + 17, 4)},  // passes the buffer several times
      {6, ""},
      {7, noise(kBlockBytes - 1, 5)},
  };
  std::string first;
  for (size_t piece : {size_t{1} << 24, size_t{100000}, size_t{4096}, size_t{1000}}) {
    SCOPED_TRACE(piece);
    auto file = write(sections, piece);
    expect_content(*file, sections);
    auto opened = reopen(SegmentStamp{file->file_bytes(), file->trailer_checksum()}).value();
    expect_content(*opened, sections);
    EXPECT_TRUE(opened->verify().ok());
    EXPECT_FALSE(opened->has_section(8));
    EXPECT_EQ(opened->section(8).status().code(), Code::kCorruption);
    if (first.empty()) first = bytes();
    EXPECT_TRUE(bytes() == first) << "how it was appended does not show";
  }
}

TEST_F(SegmentTest, NoSectionsAndHeapAreFine) {
  auto empty = create_segment_file(&files_, "d", kStore, 5, nullptr).value()->finish().value();
  EXPECT_EQ(empty->file_bytes(), 64u + 8u + 64u);
  EXPECT_TRUE(reopen().has_value());
  const Sections sections = {{1, noise(200000, 1)}, {2, "tail"}};
  auto writer = create_segment_on_heap(6, nullptr);
  for (const auto& [tag, text] : sections) {
    ASSERT_TRUE(writer->begin_section(tag).ok());
    ASSERT_TRUE(writer->append(as_bytes_of(text)).ok());
  }
  expect_content(*writer->finish().value(), sections);
}

TEST_F(SegmentTest, RangesAreChecked) {
  auto file = write({{1, "0123456789"}, {2, "secret"}}, 100);
  const Section section = file->section(1).value();
  EXPECT_EQ(as_text(section.bytes(3, 4).value()), "3456");
  EXPECT_TRUE(section.bytes(10, 0).has_value());
  EXPECT_FALSE(section.bytes(10, 1).has_value());
  EXPECT_FALSE(section.bytes(11, 0).has_value());
  EXPECT_FALSE(section.bytes(1, UINT64_MAX).has_value());
  EXPECT_FALSE(section.bytes(UINT64_MAX, 2).has_value());
  EXPECT_TRUE(Section().bytes(0, 0).has_value());
  EXPECT_FALSE(Section().bytes(0, 1).has_value());
}

TEST_F(SegmentTest, WriterRefusesMisuse) {
  auto writer = create_segment_file(&files_, "d", kStore, 5, nullptr).value();
  EXPECT_FALSE(writer->append(as_bytes_of("x")).ok()) << "no section yet";
  ASSERT_TRUE(writer->begin_section(1).ok());
  EXPECT_FALSE(writer->begin_section(1).ok()) << "twice";
  ASSERT_TRUE(writer->finish().has_value());
  EXPECT_FALSE(writer->finish().has_value());
  EXPECT_FALSE(writer->append(as_bytes_of("x")).ok());
}

TEST_F(SegmentTest, SectionsAreBounded) {
  auto writer = create_segment_on_heap(6, nullptr);
  for (SectionTag tag = 0; tag < kSectionsMax; ++tag) ASSERT_TRUE(writer->begin_section(tag).ok());
  ASSERT_TRUE(writer->append(as_bytes_of("the last")).ok());
  const Status refused = writer->begin_section(kSectionsMax);
  EXPECT_EQ(refused.code(), Code::kInternal);
  EXPECT_NE(refused.message().find("too many"), std::string::npos) << refused.message();
  const auto file = writer->finish().value();
  EXPECT_EQ(file->places().size(), size_t{kSectionsMax});
  EXPECT_EQ(as_text(file->section(kSectionsMax - 1).value().all().value()), "the last");
}

TEST_F(SegmentTest, SpaceIsTakenOnlyWhereTheFileSystemCan) {
  for (const bool can : {true, false}) {
    if (!can) files_.fail(FileOp::kAllocate, ".seg", 1, {failed_precondition("cannot")}, false);
    auto writer = create_segment_file(&files_, "d", kStore, 5, nullptr, 1 << 20).value();
    EXPECT_EQ(files_.used_bytes(), can ? 1u << 20 : 0u);
    ASSERT_TRUE(writer->begin_section(1).ok());
    ASSERT_TRUE(writer->append(as_bytes_of("content")).ok());
    expect_content(*writer->finish().value(), {{1, "content"}});
    EXPECT_EQ(files_.used_bytes(), bytes().size()) << "what was taken too much is given back";
    writer.reset();
    ASSERT_TRUE(files_.remove("d/" + segment_name(5)).ok());
  }
  files_.fail(FileOp::kAllocate, ".seg", 1, {storage_full("full")}, false);
  EXPECT_EQ(create_segment_file(&files_, "d", kStore, 5, nullptr, 1 << 20).status().code(),
            Code::kStorageFull);
  EXPECT_TRUE(files_.list("d").value().empty());
}

TEST_F(SegmentTest, UnfinishedFileIsRemoved) {
  auto writer = create_segment_file(&files_, "d", kStore, 5, nullptr).value();
  ASSERT_TRUE(writer->begin_section(1).ok());
  writer.reset();
  EXPECT_TRUE(files_.list("d").value().empty());
  for (const FileOp op : {FileOp::kAppend, FileOp::kSync, FileOp::kMap}) {
    writer = create_segment_file(&files_, "d", kStore, 5, nullptr).value();
    ASSERT_TRUE(writer->begin_section(1).ok());
    files_.fail(op, ".seg", 1, FileFault{storage_full("full"), 3}, false);
    EXPECT_EQ(writer->finish().status().code(), Code::kStorageFull);
    EXPECT_FALSE(writer->finish().has_value());
    writer.reset();
    files_.set_hook(nullptr);
    EXPECT_TRUE(files_.list("d").value().empty());
  }
  writer = create_segment_file(&files_, "d", kStore, 5, nullptr).value();
  ASSERT_TRUE(writer->begin_section(1).ok());
  files_.fail(FileOp::kAppend, ".seg", 1, FileFault{io_error("EIO")}, false);
  EXPECT_EQ(writer->append(as_bytes_of(noise(2 << 20, 1))).code(), Code::kIoError);
  EXPECT_EQ(writer->append(as_bytes_of("x")).code(), Code::kIoError) << "the first error stays";
  EXPECT_EQ(writer->begin_section(2).code(), Code::kIoError);
  EXPECT_EQ(writer->finish().status().code(), Code::kIoError);
}

TEST_F(SegmentTest, PaddingMayBeWhatTheMediumRefuses) {
  // With what aligns the next section, or the end, the writer's buffer is full.
  const std::string text = noise((size_t{1} << 20) - sizeof(SegmentHeader) - 10, 1);
  for (const bool next : {true, false}) {
    auto writer = create_segment_file(&files_, "d", kStore, 5, nullptr).value();
    ASSERT_TRUE(writer->begin_section(1).ok());
    ASSERT_TRUE(writer->append(as_bytes_of(text)).ok());
    files_.fail(FileOp::kAppend, ".seg", 1, FileFault{storage_full("full")}, false);
    if (next) {
      EXPECT_EQ(writer->begin_section(2).code(), Code::kStorageFull);
    }
    EXPECT_EQ(writer->finish().status().code(), Code::kStorageFull);
    EXPECT_EQ(writer->finish().status().code(), Code::kStorageFull) << "the first error stays";
    writer.reset();
    files_.set_hook(nullptr);
    EXPECT_TRUE(files_.list("d").value().empty());
  }
  expect_content(*write({{1, text}, {2, "x"}}, text.size()), {{1, text}, {2, "x"}});
}

TEST_F(SegmentTest, AFileThatIsNotGivenOutIsRemoved) {
  bool told = false;
  auto writer =
      create_segment_file(&files_, "d", kStore, 5, [&](const auto&) { told = true; }).value();
  ASSERT_TRUE(writer->begin_section(1).ok());
  ASSERT_TRUE(writer->append(as_bytes_of("content")).ok());
  // The medium took every byte, and shows others.
  files_.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
    if (call.op == FileOp::kMap) files_.overwrite(call.path, std::string(500, '\0'));
    return std::nullopt;
  });
  EXPECT_EQ(writer->finish().status().code(), Code::kCorruption);
  EXPECT_FALSE(told);
  writer.reset();
  files_.set_hook(nullptr);
  EXPECT_TRUE(files_.list("d").value().empty());
  // There is no memory to take it.
  const auto full = [](const auto&) { throw std::bad_alloc(); };
  writer = create_segment_file(&files_, "d", kStore, 5, full).value();
  EXPECT_THROW(static_cast<void>(writer->finish()), std::bad_alloc);
  writer.reset();
  EXPECT_TRUE(files_.list("d").value().empty());
}

/// Opens and reads everything; true when every byte came back unchanged.
bool reads_well(const Result<std::shared_ptr<SegmentFile>>& opened,
                const std::vector<std::pair<SectionTag, std::string>>& sections) {
  if (!opened.has_value()) {
    EXPECT_EQ(opened.status().code(), Code::kCorruption);
    return false;
  }
  bool well = true;
  for (const auto& [tag, text] : sections) {
    const auto section = (*opened)->section(tag);
    if (!section.has_value()) return false;
    const auto all = section->all();
    if (!all.has_value()) {
      EXPECT_EQ(all.status().code(), Code::kCorruption);
      well = false;
    } else {
      EXPECT_TRUE(as_text(*all) == text) << "wrong bytes were given out";
    }
  }
  EXPECT_EQ((*opened)->verify().ok(), well);
  return well;
}

TEST_F(SegmentTest, EveryFlippedByteIsFound) {
  const Sections sections = {{1, noise(100, 1)}, {2, ""}, {3, noise(70000, 2)}, {4, noise(9, 3)}};
  auto file = write(sections, 1000);
  const std::string whole = bytes();
  ASSERT_TRUE(reads_well(reopen(), sections));
  for (size_t at = 0; at<whole.size(); at += at> 400 && at + 400 < whole.size() ? 61 : 1) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
    files_.overwrite("d/" + segment_name(5), damaged);
    ASSERT_FALSE(reads_well(reopen(), sections)) << "offset " << at;
  }
}

TEST_F(SegmentTest, EveryTruncationAndExtensionIsFound) {
  const Sections sections = {{1, noise(100, 1)}, {2, noise(300, 2)}};
  auto file = write(sections, 1000);
  const std::string whole = bytes();
  for (size_t size = 0; size < whole.size(); ++size) {
    files_.overwrite("d/" + segment_name(5), std::string_view(whole).substr(0, size));
    ASSERT_FALSE(reopen().has_value()) << size;
  }
  files_.overwrite("d/" + segment_name(5), whole + std::string(8, '\0'));
  EXPECT_FALSE(reopen().has_value());
  files_.overwrite("d/" + segment_name(5), whole + whole.substr(whole.size() - 64));
  EXPECT_FALSE(reopen().has_value());
}

TEST_F(SegmentTest, DamageIsFoundOnlyWhereItIsTouched) {
  write({{1, noise(kBlockBytes * 2, 1)}, {2, noise(kBlockBytes, 2)}}, 1 << 20);
  std::string damaged = bytes();
  damaged[kBlockBytes + 5] ^= 1;
  files_.overwrite("d/" + segment_name(5), damaged);
  auto file = reopen().value();
  const Section section = file->section(1).value();
  EXPECT_TRUE(section.bytes(0, 1000).has_value());
  const Status status = section.bytes(kBlockBytes, 1).status();
  EXPECT_EQ(status.code(), Code::kCorruption);
  EXPECT_NE(status.message().find(segment_name(5) + "' at offset 65536"), std::string::npos)
      << status.message();
  EXPECT_TRUE(file->section(2).value().bytes(100, 100).has_value());
  EXPECT_FALSE(section.bytes(kBlockBytes, 1).has_value()) << "stays bad";
}

TEST_F(SegmentTest, CopiesAreVerifiedAsWell) {
  const std::string text = noise(kBlockBytes * 3 + 100, 1);
  write({{1, text}}, 1 << 20);
  const std::string whole = bytes();
  // Ranges in one block, over a border, over many blocks; verified before, partly, or not at all.
  const std::pair<uint64_t, uint64_t> ranges[] = {
      {0, 10},          {kBlockBytes - 70, 20}, {kBlockBytes - 70, kBlockBytes * 2},
      {0, text.size()}, {text.size() - 1, 1},   {5, 0}};
  const auto read = [](const Section& section, uint64_t offset,
                       uint64_t size) -> Result<std::string> {
    std::string out(size, '-');
    RETURN_IF_ERROR(section.read(offset, std::as_writable_bytes(std::span(out))));
    return out;
  };
  for (const bool one_file : {true, false}) {
    auto file = reopen().value();
    for (const auto& [offset, size] : ranges) {
      if (!one_file) file = reopen().value();
      const Section section = file->section(1).value();
      EXPECT_EQ(read(section, offset, size).value(), text.substr(offset, size)) << offset;
    }
    const Section section = file->section(1).value();
    EXPECT_EQ(read(section, text.size(), 1).status().code(), Code::kCorruption);
    EXPECT_EQ(read(section, UINT64_MAX, 2).status().code(), Code::kCorruption);
  }
  std::string damaged = whole;
  damaged[kBlockBytes + 5] ^= 1;
  files_.overwrite("d/" + segment_name(5), damaged);
  const auto file = reopen().value();
  const Section section = file->section(1).value();
  EXPECT_TRUE(read(section, 0, 1000).has_value());
  EXPECT_EQ(read(section, kBlockBytes, 1).status().code(), Code::kCorruption);
  EXPECT_EQ(read(section, 0, text.size()).status().code(), Code::kCorruption);
  EXPECT_FALSE(section.bytes(kBlockBytes, 1).has_value()) << "stays bad";
  EXPECT_EQ(file->verify().code(), Code::kCorruption);
}

/// An image whose bytes cannot be copied while it is told so.
class RefusedImage final : public MappedFile {
 public:
  RefusedImage(std::string_view bytes, const bool* refused)
      : lines_(bytes.size() / sizeof(uint64_t)), refused_(refused) {
    std::memcpy(lines_.data(), bytes.data(), bytes.size());
  }
  Bytes bytes() const override { return std::as_bytes(std::span(lines_)); }
  Status read_at(uint64_t offset, std::span<std::byte> out) const override {
    return *refused_ ? io_error("EIO") : MappedFile::read_at(offset, out);
  }

 private:
  std::vector<uint64_t> lines_;  // as every segment file, a multiple of eight bytes
  const bool* refused_;
};

TEST_F(SegmentTest, CopiesThatTheMediumRefusesAreNoDamage) {
  const std::string text = noise(kBlockBytes * 2, 1);
  write({{1, text}}, 1 << 20);
  bool refused = false;
  const auto file = open_segment_image(std::make_unique<RefusedImage>(bytes(), &refused), "image",
                                       kStore, 5, std::nullopt)
                        .value();
  const Section section = file->section(1).value();
  std::string out(100, '-');
  const auto read = [&] { return section.read(0, std::as_writable_bytes(std::span(out))); };
  for (const bool verified_before : {false, true}) {
    if (verified_before) {
      EXPECT_TRUE(read().ok());
    }
    refused = true;
    out.assign(out.size(), '-');
    EXPECT_EQ(read().code(), Code::kIoError) << verified_before;
    EXPECT_EQ(out, std::string(out.size(), '-')) << "nothing is given out";
    EXPECT_EQ(file->verify().code(), Code::kIoError) << "of the blocks that are left";
    refused = false;
  }
  EXPECT_TRUE(file->verify().ok());
  EXPECT_TRUE(read().ok());
  EXPECT_EQ(out, text.substr(0, out.size()));
}

TEST_F(SegmentTest, SwappedBlocksAndStrangersAreFound) {
  const std::string same(kBlockBytes * 3, 'x');
  write({{1, same}}, 1 << 20);
  std::string text = noise(kBlockBytes * 3, 1);
  auto file = write({{1, text}}, 1 << 20);
  const SegmentStamp stamp{file->file_bytes(), file->trailer_checksum()};
  std::string damaged = bytes();
  std::swap_ranges(damaged.begin() + kBlockBytes, damaged.begin() + 2 * kBlockBytes,
                   damaged.begin() + 2 * kBlockBytes);
  files_.overwrite("d/" + segment_name(5), damaged);
  EXPECT_FALSE(reopen().value()->section(1).value().all().has_value());

  EXPECT_FALSE(open_segment_file(&files_, "d", kStore + 1, 5, std::nullopt).has_value());
  files_.overwrite("d/" + segment_name(5), bytes());
  write({{1, text}}, 1 << 20, 6);
  ASSERT_TRUE(files_.rename("d/" + segment_name(6), "d/" + segment_name(5)).ok());
  EXPECT_FALSE(reopen().has_value()) << "another file's name";
  write({{1, same}}, 1 << 20);
  EXPECT_TRUE(reopen().has_value());
  EXPECT_FALSE(reopen(stamp).has_value()) << "not the one the manifest names";
  const auto now = reopen().value();
  EXPECT_TRUE(reopen(SegmentStamp{now->file_bytes(), now->trailer_checksum()}).has_value());
  for (const SegmentStamp& other : {SegmentStamp{now->file_bytes() + 8, now->trailer_checksum()},
                                    SegmentStamp{now->file_bytes(), now->trailer_checksum() ^ 1}}) {
    EXPECT_EQ(reopen(other).status().code(), Code::kCorruption);
  }
}

TEST_F(SegmentTest, PlacesAreInFileOrder) {
  auto file = write({{9, ""}, {1, "x"}, {4, ""}, {2, noise(100, 1)}}, 1000);
  std::vector<SectionTag> tags;
  uint64_t end = sizeof(SegmentHeader);
  for (const SectionPlace& place : file->places()) {
    tags.push_back(place.tag);
    EXPECT_GE(place.offset, end);
    end = place.offset + place.bytes;
  }
  EXPECT_EQ(tags, (std::vector<SectionTag>{9, 1, 4, 2}));
}

TEST_F(SegmentTest, AllDamagedBlocksAreNamed) {
  write({{1, noise(kBlockBytes * 4, 1)}}, 1 << 20);
  const auto none = reopen().value()->damaged_blocks({});
  EXPECT_TRUE(none.value().empty());
  std::string damaged = bytes();
  damaged[kBlockBytes + 5] ^= 1;
  damaged[3 * kBlockBytes] ^= 1;
  files_.overwrite("d/" + segment_name(5), damaged);
  const auto file = reopen().value();
  EXPECT_EQ(file->damaged_blocks({}).value(),
            (std::vector<uint64_t>{kBlockBytes, 3 * kBlockBytes}));
  std::vector<uint64_t> looked_at;
  const auto stopped = file->damaged_blocks([&](uint64_t bytes) {
    looked_at.push_back(bytes);
    return looked_at.size() < 2;
  });
  EXPECT_EQ(stopped.status().code(), Code::kUnavailable);
  EXPECT_EQ(looked_at, (std::vector<uint64_t>{kBlockBytes, 2 * kBlockBytes}));
}

// ---- Forged files: checksums fit, what they cover does not --------------------------------------

struct SegmentParts {
  SegmentHeader header;
  std::vector<SectionEntry> sections;
  SegmentTrailer trailer;
};

/// `whole` changed, with checksums that fit: what only malice or a defect makes.
std::string forged(const std::string& whole, const std::function<void(SegmentParts&)>& change) {
  const Bytes bytes = as_bytes_of(whole);
  SegmentParts parts;
  parts.header = read_as<SegmentHeader>(bytes);
  parts.trailer = read_as<SegmentTrailer>(bytes.last(sizeof(SegmentTrailer)));
  const uint64_t data_bytes = parts.trailer.data_bytes;
  for (uint32_t i = 0; i < parts.trailer.sections_count; ++i) {
    parts.sections.push_back(
        read_as<SectionEntry>(bytes.subspan(data_bytes + i * sizeof(SectionEntry))));
  }
  change(parts);
  SegmentHeader& header = parts.header;
  header.checksum =
      checksum_of(header, checksum_seed(header.store_id, header.segment_id, kSeedSegmentHeader));
  std::string tables = whole.substr(data_bytes);
  tables.resize(tables.size() - sizeof(SegmentTrailer));
  for (size_t i = 0; i < parts.sections.size(); ++i) {
    tables.replace(i * sizeof(SectionEntry), sizeof(SectionEntry),
                   as_text(bytes_of(parts.sections[i])));
  }
  parts.trailer.tables_checksum =
      checksum(as_bytes_of(tables), checksum_seed(kStore, 5, kSeedTables));
  parts.trailer.checksum = checksum_of(parts.trailer, checksum_seed(kStore, 5, kSeedTrailer));
  std::string out(as_text(bytes_of(header)));
  out += whole.substr(sizeof(SegmentHeader), data_bytes - sizeof(SegmentHeader));
  out += tables;
  out += as_text(bytes_of(parts.trailer));
  return out;
}

struct ForgedCase {
  const char* said;
  std::function<void(SegmentParts&)> change;
};

const ForgedCase kForgedCases[] = {
    {"newer version", [](SegmentParts& p) { ++p.header.version; }},
    {"header has unknown fields", [](SegmentParts& p) { p.header.version = 0; }},
    {"header has unknown fields", [](SegmentParts& p) { p.header.reserved = 1; }},
    {"header has unknown fields", [](SegmentParts& p) { p.header.reserved2[0] = 1; }},
    {"header has unknown fields", [](SegmentParts& p) { p.header.reserved2[1] = 1; }},
    {"header has unknown fields", [](SegmentParts& p) { p.header.reserved2[2] = 1; }},
    {"belongs to another store", [](SegmentParts& p) { ++p.header.store_id; }},
    {"another file's name", [](SegmentParts& p) { ++p.header.segment_id; }},
    {"trailer contradicts the header", [](SegmentParts& p) { ++p.trailer.version; }},
    {"trailer contradicts the header", [](SegmentParts& p) { p.trailer.version = 0; }},
    {"trailer contradicts the header", [](SegmentParts& p) { ++p.trailer.store_id; }},
    {"trailer contradicts the header", [](SegmentParts& p) { ++p.trailer.segment_id; }},
    {"file length differs", [](SegmentParts& p) { ++p.trailer.file_bytes; }},
    {"table sizes contradict", [](SegmentParts& p) { p.trailer.data_bytes = 0; }},
    {"table sizes contradict", [](SegmentParts& p) { p.trailer.data_bytes = uint64_t{1} << 40; }},
    {"table sizes contradict", [](SegmentParts& p) { p.trailer.data_bytes -= 8; }},
    {"table sizes contradict", [](SegmentParts& p) { p.trailer.sections_count = UINT32_MAX; }},
    {"table sizes contradict", [](SegmentParts& p) { --p.trailer.sections_count; }},
    {"section table is wrong", [](SegmentParts& p) { p.sections[0].reserved = 1; }},
    {"section table is wrong", [](SegmentParts& p) { p.sections[1].offset += 64; }},
    {"section table is wrong", [](SegmentParts& p) { p.sections[2].bytes += 64; }},
    {"section table is wrong", [](SegmentParts& p) { p.sections[2].bytes = UINT64_MAX; }},
    {"data has no section", [](SegmentParts& p) { p.sections[2].bytes -= 64; }},
    {"two sections have one tag", [](SegmentParts& p) { p.sections[2].tag = 1; }},
};

TEST_F(SegmentTest, EveryFieldIsHeldAgainstTheOthers) {
  const Sections sections = {{1, noise(100, 1)}, {2, noise(300, 2)}, {3, noise(130, 3)}};
  write(sections, 1000);
  const std::string whole = bytes();
  files_.overwrite("d/" + segment_name(5), forged(whole, [](SegmentParts&) {}));
  ASSERT_TRUE(bytes() == whole) << "the forger changes nothing by itself";
  for (const ForgedCase& one : kForgedCases) {
    SCOPED_TRACE(one.said + std::string(" ") + std::to_string(&one - kForgedCases));
    files_.overwrite("d/" + segment_name(5), forged(whole, one.change));
    const Status status = reopen().status();
    EXPECT_EQ(status.code(), Code::kCorruption);
    EXPECT_NE(status.message().find(one.said), std::string::npos) << status.message();
  }
}

// ---- Salvage ------------------------------------------------------------------------------------

class SalvageTest : public SegmentTest {
 protected:
  Result<std::shared_ptr<SegmentFile>> salvage(const std::string& damaged) {
    files_.overwrite("d/" + segment_name(5), damaged);
    return open_segment_file(&files_, "d", kStore, 5, std::nullopt, SegmentOpening::kSalvage);
  }
  static std::string zeroed(std::string bytes, size_t at, size_t size) {
    return bytes.replace(at, size, size, '\0');
  }
};

TEST_F(SalvageTest, WithoutHeaderTrailerOrTheirChecksumAllIsThere) {
  for (const size_t size : {size_t{10}, size_t{1000}, size_t{kBlockBytes}, kBlockBytes * 3 + 7}) {
    SCOPED_TRACE(size);
    const Sections sections = {{1, noise(size, 1)}, {2, ""}, {3, noise(77, 2)}};
    write(sections, 1 << 20);
    const std::string whole = bytes();
    const size_t trailer = whole.size() - sizeof(SegmentTrailer);
    expect_content(*salvage(zeroed(whole, trailer, sizeof(SegmentTrailer))).value(), sections);
    std::string other_sum = whole;
    other_sum[trailer + offsetof(SegmentTrailer, tables_checksum)] ^= 1;
    expect_content(*salvage(other_sum).value(), sections);
    // The header lies in the first block: what is there is lost, the rest is not.
    const auto headless = salvage(zeroed(whole, 0, sizeof(SegmentHeader))).value();
    EXPECT_EQ(headless->damaged_blocks({}).value(), std::vector<uint64_t>{0});
    EXPECT_FALSE(reopen().has_value()) << "salvage alone takes such a file";
  }
}

TEST_F(SalvageTest, NothingIsGuessedWhereNothingFits) {
  write({{1, noise(kBlockBytes * 2, 1)}}, 1 << 20);
  const std::string whole = bytes();
  const size_t trailer = whole.size() - sizeof(SegmentTrailer);
  const std::string cut = zeroed(whole, trailer, sizeof(SegmentTrailer));
  EXPECT_TRUE(salvage(cut).has_value());
  // The first block, by which the guess is judged, is damaged as well.
  EXPECT_EQ(salvage(zeroed(cut, 100, 8)).status().code(), Code::kCorruption);
  // A file that holds no table at all.
  EXPECT_EQ(salvage(std::string(200, 'x')).status().code(), Code::kCorruption);
  EXPECT_EQ(salvage(std::string(kBlockBytes + 500, 'x')).status().code(), Code::kCorruption);
  // The smallest file there is: its tables are one checksum, and with more there is no room.
  create_segment_file(&files_, "d", kStore, 5, nullptr).value()->finish().value();
  const std::string empty = zeroed(bytes(), bytes().size() - sizeof(SegmentTrailer), 8);
  EXPECT_TRUE(salvage(empty).has_value());
  EXPECT_EQ(salvage(zeroed(empty, 0, 8)).status().code(), Code::kCorruption);
}

}  // namespace
}  // namespace aionbd
