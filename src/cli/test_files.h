// A directory of its own for each test, and files to put into it.
#pragma once

#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "io/file_system.h"

namespace aionbd {

/// Thread safety: single owner.
class TestFiles : public ::testing::Test {
 protected:
  TestFiles() {
    std::string name = (std::filesystem::temp_directory_path() / "aionbd_cli_XXXXXX").string();
    dir_ = mkdtemp(name.data());
  }
  ~TestFiles() override {
    std::error_code ignored;
    std::filesystem::remove_all(dir_, ignored);
  }

  std::string path(const std::string& name) const { return dir_ + "/" + name; }
  void write(const std::string& name, std::string_view bytes) const {
    auto file = posix_file_system().create(path(name));
    ASSERT_TRUE(file.has_value());
    ASSERT_TRUE((*file)->append(as_bytes_of(bytes)).ok());
  }
  std::string read_bytes(const std::string& name) const {
    auto bytes = posix_file_system().read(path(name), uint64_t{1} << 30);
    return bytes.has_value() ? *bytes : "(" + bytes.error().to_string() + ")";
  }
  bool exists(const std::string& name) const { return std::filesystem::exists(path(name)); }

  static std::string gzipped(const std::string& text) {
    z_stream stream{};
    deflateInit2(&stream, 6, Z_DEFLATED, 16 + 15, 8, Z_DEFAULT_STRATEGY);
    std::string out(deflateBound(&stream, text.size()), '\0');
    std::string in = text;
    stream.next_in = reinterpret_cast<Bytef*>(in.data());
    stream.avail_in = static_cast<uInt>(in.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    deflate(&stream, Z_FINISH);
    out.resize(stream.total_out);
    deflateEnd(&stream);
    return out;
  }
  static std::string zstd_packed(const std::string& text) {
    std::string out(ZSTD_compressBound(text.size()), '\0');
    out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
    return out;
  }

 private:
  std::string dir_;
};

}  // namespace aionbd
