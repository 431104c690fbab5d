// Plain, gzip (zlib) and zstd input streams. Each holds one chunk of the file and, for compressed
// input, the unpacker's own window, so a file that unpacks to terabytes costs no memory.
#include "cli/byte_stream.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace aionbd {
namespace {

/// Large enough that the open and close behind each `read_at` do not show.
constexpr size_t kChunkBytes = size_t{1} << 20;

/// The file as it is. Thread safety: single owner.
class PlainStream : public ByteStream {
 public:
  PlainStream(FileSystem& files, std::string path, uint64_t bytes)
      : files_(files), path_(std::move(path)), file_bytes_(bytes) {}

  Result<size_t> read(std::span<std::byte> out) override {
    size_t done = 0;
    while (done < out.size()) {
      ASSIGN_OR_RETURN(const Bytes chunk, peek());
      if (chunk.empty()) break;
      const size_t take = std::min(chunk.size(), out.size() - done);
      std::memcpy(out.data() + done, chunk.data(), take);
      advance(take);
      done += take;
    }
    return done;
  }
  uint64_t consumed() const override { return consumed_; }
  uint64_t file_bytes() const override { return file_bytes_; }
  std::optional<uint64_t> content_bytes() const override { return file_bytes_; }

  /// The next bytes in place, empty at the end; valid until the next call.
  Result<Bytes> peek() {
    if (position_ == chunk_.size()) {
      // Never past the length seen at opening: a file that grows meanwhile ends where it ended.
      const uint64_t left = file_bytes_ - std::min(consumed_, file_bytes_);
      const uint64_t want = std::min<uint64_t>(left, kChunkBytes);
      if (want == 0) return Bytes{};
      ASSIGN_OR_RETURN(chunk_, files_.read_at(path_, consumed_, want));
      position_ = 0;
    }
    return as_bytes_of(chunk_).subspan(position_);
  }
  void advance(size_t bytes) {
    position_ += bytes;
    consumed_ += bytes;
  }

 private:
  FileSystem& files_;
  const std::string path_;
  const uint64_t file_bytes_;
  std::string chunk_;
  size_t position_ = 0;  // in chunk_
  uint64_t consumed_ = 0;
};

/// gzip, several members one after the other included. Thread safety: single owner.
class GzipStream : public ByteStream {
 public:
  explicit GzipStream(std::unique_ptr<PlainStream> input) : input_(std::move(input)) {
    // 16: a gzip header is required; 15: the largest window.
    ready_ = inflateInit2(&inflate_, 16 + 15) == Z_OK;
  }
  ~GzipStream() override {
    if (ready_) inflateEnd(&inflate_);
  }
  GzipStream(const GzipStream&) = delete;
  GzipStream& operator=(const GzipStream&) = delete;

  Result<size_t> read(std::span<std::byte> out) override {
    if (!ready_) return resource_exhausted("no memory to unpack gzip");
    size_t done = 0;
    while (done < out.size()) {
      ASSIGN_OR_RETURN(const Bytes chunk, input_->peek());
      if (chunk.empty()) {
        if (in_member_) return corruption("the gzip data ends too early");
        break;
      }
      if (!in_member_) {
        if (inflateReset(&inflate_) != Z_OK) return internal_error("gzip reset failed");
        in_member_ = true;
      }
      const size_t room = std::min<size_t>(out.size() - done, kChunkBytes);
      // zlib's interface is not const-correct; it does not write to its input.
      inflate_.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(chunk.data()));
      inflate_.avail_in = static_cast<uInt>(chunk.size());
      inflate_.next_out = reinterpret_cast<Bytef*>(out.data() + done);
      inflate_.avail_out = static_cast<uInt>(room);
      const int code = inflate(&inflate_, Z_NO_FLUSH);
      input_->advance(chunk.size() - inflate_.avail_in);
      done += room - inflate_.avail_out;
      if (code == Z_STREAM_END) {
        in_member_ = false;
      } else if (code != Z_OK) {
        return corruption("the gzip data is damaged");
      }
    }
    return done;
  }
  uint64_t consumed() const override { return input_->consumed(); }
  uint64_t file_bytes() const override { return input_->file_bytes(); }
  std::optional<uint64_t> content_bytes() const override { return std::nullopt; }

 private:
  std::unique_ptr<PlainStream> input_;
  z_stream inflate_{};
  bool ready_ = false;
  bool in_member_ = false;
};

/// zstd, several frames one after the other included. Thread safety: single owner.
class ZstdStream : public ByteStream {
 public:
  explicit ZstdStream(std::unique_ptr<PlainStream> input)
      : input_(std::move(input)), context_(ZSTD_createDCtx()) {}
  ~ZstdStream() override { ZSTD_freeDCtx(context_); }
  ZstdStream(const ZstdStream&) = delete;
  ZstdStream& operator=(const ZstdStream&) = delete;

  Result<size_t> read(std::span<std::byte> out) override {
    if (context_ == nullptr) return resource_exhausted("no memory to unpack zstd");
    ZSTD_outBuffer to{out.data(), out.size(), 0};
    while (to.pos < to.size) {
      ASSIGN_OR_RETURN(const Bytes chunk, input_->peek());
      ZSTD_inBuffer from{chunk.data(), chunk.size(), 0};
      const size_t before = to.pos;
      // With no input left the unpacker may still hold finished bytes, so it is asked once more.
      const size_t code = ZSTD_decompressStream(context_, &to, &from);
      if (ZSTD_isError(code) != 0) return corruption("the zstd data is damaged");
      input_->advance(from.pos);
      if (from.pos > 0 || to.pos > before) in_frame_ = code != 0;
      if (chunk.empty() && to.pos == before) {
        if (in_frame_) return corruption("the zstd data ends too early");
        break;
      }
    }
    return to.pos;
  }
  uint64_t consumed() const override { return input_->consumed(); }
  uint64_t file_bytes() const override { return input_->file_bytes(); }
  std::optional<uint64_t> content_bytes() const override { return std::nullopt; }

 private:
  std::unique_ptr<PlainStream> input_;
  ZSTD_DCtx* context_;
  bool in_frame_ = false;
};

bool starts_with_bytes(Bytes bytes, std::initializer_list<uint8_t> magic) {
  if (bytes.size() < magic.size()) return false;
  return std::equal(magic.begin(), magic.end(), bytes.begin(),
                    [](uint8_t a, std::byte b) { return std::byte{a} == b; });
}

}  // namespace

Status ByteStream::read_exactly(std::span<std::byte> out) {
  ASSIGN_OR_RETURN(const size_t got, read(out));
  if (got != out.size()) {
    return corruption("the file ends too early: got " + std::to_string(got) + " bytes, want " +
                      std::to_string(out.size()));
  }
  return {};
}

Status ByteStream::skip(uint64_t bytes) {
  std::string scratch(static_cast<size_t>(std::min<uint64_t>(bytes, kChunkBytes)), '\0');
  while (bytes > 0) {
    const auto take = static_cast<size_t>(std::min<uint64_t>(bytes, scratch.size()));
    RETURN_IF_ERROR(read_exactly(std::as_writable_bytes(std::span(scratch.data(), take))));
    bytes -= take;
  }
  return {};
}

Result<std::unique_ptr<ByteStream>> open_byte_stream(FileSystem& files, const std::string& path) {
  ASSIGN_OR_RETURN(const uint64_t bytes, files.file_size(path));
  auto plain = std::make_unique<PlainStream>(files, path, bytes);
  ASSIGN_OR_RETURN(const Bytes start, plain->peek());
  if (starts_with_bytes(start, {0x1F, 0x8B, 0x08})) {
    return std::unique_ptr<ByteStream>(std::make_unique<GzipStream>(std::move(plain)));
  }
  if (starts_with_bytes(start, {0x28, 0xB5, 0x2F, 0xFD})) {
    return std::unique_ptr<ByteStream>(std::make_unique<ZstdStream>(std::move(plain)));
  }
  return std::unique_ptr<ByteStream>(std::move(plain));
}

}  // namespace aionbd
