// The least that durable ingest over HTTP must do, for bench/ingest.py: parse each batch's JSON
// body with simdjson, write its record to a file, sync. Prints one JSON object: CPU milliseconds
// per batch (parse and write apart) and the median wall milliseconds of write + fdatasync.
//
//   ingest_floor DIRECTORY [batch = 256] [images = 60000]
#include <fcntl.h>
#include <simdjson.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

namespace {

constexpr const char* kImages = "/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz";
constexpr size_t kHeaderBytes = 16;
constexpr size_t kDim = 784;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "ingest_floor: %s\n", what);
  std::exit(1);
}

double cpu_seconds() {
  timespec now = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

std::vector<unsigned char> read_images(size_t count) {
  std::vector<unsigned char> out(kHeaderBytes + count * kDim);
  gzFile file = gzopen(kImages, "rb");
  if (file == nullptr) fail("cannot open the images: install dataset-fashion-mnist");
  const int got = gzread(file, out.data(), static_cast<unsigned>(out.size()));
  gzclose(file);
  if (got != static_cast<int>(out.size())) fail("the images are cut short");
  return out;
}

std::string body_of(const unsigned char* pixels, size_t first, size_t count) {
  std::string out = "{\"points\":[";
  for (size_t i = 0; i < count; ++i) {
    out += (i == 0 ? "{\"id\":" : ",{\"id\":") + std::to_string(first + i) + ",\"values\":[";
    for (size_t k = 0; k < kDim; ++k) {
      if (k > 0) out += ',';
      out += std::to_string(pixels[(first + i) * kDim + k]);
    }
    out += "],\"payload\":{\"label\":1}}";
  }
  return out + "]}";
}

/// Ids and values of the points of one body.
void parse(simdjson::ondemand::parser& parser, const simdjson::padded_string& body,
           std::vector<uint64_t>& ids, std::vector<float>& values) {
  ids.clear();
  values.clear();
  auto document = parser.iterate(body);
  for (auto point : document["points"].get_array()) {
    ids.push_back(point["id"].get_uint64());
    for (auto value : point["values"].get_array()) {
      values.push_back(static_cast<float>(double(value)));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) fail("give a directory on the disk to measure");
  const size_t batch = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 256;
  const size_t images = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 60000;
  const std::vector<unsigned char> pixels = read_images(images);
  const std::string path = std::string(argv[1]) + "/ingest-floor.tmp";
  const int file = open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  if (file < 0) fail("cannot create a file there");
  simdjson::ondemand::parser parser;
  std::vector<uint64_t> ids;
  std::vector<float> values;
  std::vector<double> commit_ms;
  double parse_cpu = 0, write_cpu = 0;
  for (size_t first = 0; first + batch <= images; first += batch) {
    const simdjson::padded_string body(body_of(pixels.data() + kHeaderBytes, first, batch));
    const double start = cpu_seconds();
    parse(parser, body, ids, values);
    const double parsed = cpu_seconds();
    const auto wall = std::chrono::steady_clock::now();
    const size_t bytes = values.size() * sizeof(float);
    if (write(file, values.data(), bytes) != static_cast<ssize_t>(bytes)) fail("write failed");
    if (fdatasync(file) != 0) fail("fdatasync failed");
    commit_ms.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - wall).count());
    write_cpu += cpu_seconds() - parsed;
    parse_cpu += parsed - start;
  }
  close(file);
  unlink(path.c_str());
  const auto batches = static_cast<double>(commit_ms.size());
  double total_ms = 0;
  for (const double ms : commit_ms) total_ms += ms;
  std::sort(commit_ms.begin(), commit_ms.end());
  std::printf(
      "{\"batches\":%zu,\"parse_cpu_ms\":%.4f,\"write_cpu_ms\":%.4f,\"commit_wall_ms_p50\":%.4f,"
      "\"commit_wall_ms_mean\":%.4f}\n",
      commit_ms.size(), parse_cpu * 1e3 / batches, write_cpu * 1e3 / batches,
      commit_ms[commit_ms.size() / 2], total_ms / batches);
  return 0;
}
