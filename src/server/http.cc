// How it works. A pool of threads waits for the sockets of all connections (EventLoop). The thread
// that is told "readable" reads, parses, calls the application and writes the answer itself, and
// only then has the socket watched again: a request is handed to no other thread, and wakes none.
// One more thread accepts connections and looks at their clocks. A handler may
// block in the engine; therefore the pool grows by one whenever fewer than kSpareThreads are free,
// up to one thread per work slot and a reserve: health checks always find a thread.
//
// Work requests take a slot first. When none is free the connection (not a thread) waits in a
// bounded queue; the request that ends hands its slot to the head of the queue.
//
// A request whose write waits for the medium (HttpRequest::rest) holds no thread. One of them at a
// time has the turn: its thread waits for the medium, which makes durable what the others began
// before, answers those, and leaves the turn to another thread, so that the medium does not wait
// for the answers. With one client the thread that read the request does all of it.
//
// A connection has at most one wait pending, and everything else about it happens on the thread
// that was woken by it, so its state needs no lock; the mutex guards only the wait itself, which
// the sweep (every kSweepInterval) may end when its time is up. An event names its connection by a
// number that is never used again: one that comes too late finds nobody. Sockets are non-blocking
// and are read and written directly.
#include "server/http.h"

#include <fmt/format.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <cerrno>
#include <cstring>
#include <deque>
#include <list>
#include <thread>
#include <unordered_map>

#include "base/memory_guard.h"
#include "base/mutex.h"
#include "base/rng.h"
#include "server/event_loop.h"
#include "server/json.h"

namespace aionbd {
namespace {

// Time limits.
constexpr std::chrono::seconds kHeadTimeout{10};   // from the first byte of a head
constexpr std::chrono::seconds kIdleTimeout{60};   // between requests
constexpr std::chrono::seconds kWriteTimeout{10};  // for an answer, plus its size at the rate below
constexpr uint64_t kWriteBytesPerSecondMin = 64 * 1024;
/// How long, and how many bytes, a connection that was answered early is drained: closing with
/// unread bytes would reset it and the peer might never see the answer.
constexpr std::chrono::seconds kLingerTimeout{2};
constexpr uint64_t kLingerBytesMax = 64 * 1024 * 1024;
constexpr std::chrono::milliseconds kSweepInterval{50};
/// Pause after accept failed for want of descriptors or memory.
constexpr std::chrono::milliseconds kAcceptBackoff{100};
constexpr uint64_t kRequestsPerConnectionMax = 10000;

/// Requests that one turn at the medium answers.
constexpr size_t kTurnMax = 64;

/// Threads that are kept free of blocking work, and how many at most wait for it.
constexpr size_t kSpareThreads = 2;
constexpr size_t kIdleThreadsMax = 6;
/// Room for one whole head and as much again: a small body comes with its head in one read.
constexpr size_t kInputBytes = 2 * kHeadBytesMax;
/// Body buffer a connection keeps between requests.
constexpr size_t kBodyKeptBytes = 64 * 1024;
constexpr size_t kBodyGrowBytes = 64 * 1024;
/// Room made at once for a body of which kBodyGrowBytes have arrived: an ordinary batch of vectors
/// is then copied once, not at every doubling.
constexpr size_t kBodyGrownBytes = 1024 * 1024;
constexpr int kListenBacklog = 1024;

std::string_view reason_of(int status) {
  switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 413: return "Content Too Large";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 503: return "Service Unavailable";
    case 507: return "Insufficient Storage";
    default: return "Unknown";
  }
}

/// A random (version 4) UUID. Unique, not secret: correlation ids guard nothing.
std::string fresh_request_id() {
  thread_local Rng rng(entropy_seed());
  const uint64_t a = rng.next();
  const uint64_t b = rng.next();
  return fmt::format("{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}", static_cast<uint32_t>(a >> 32),
                     static_cast<uint16_t>(a >> 16), a & 0xfff,
                     static_cast<uint16_t>(0x8000 | ((b >> 48) & 0x3fff)), b & 0xffffffffffffULL);
}

/// Bytes of one body, grown as they arrive: a declared length alone costs nothing.
class BodyBuffer {
 public:
  char* data() { return bytes_.get(); }
  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }
  std::string_view view() const { return {bytes_.get(), size_}; }

  /// Makes room for `more` bytes and the padding behind them.
  void reserve(size_t more) {
    const size_t needed = size_ + more + kJsonPadding;
    if (needed <= capacity_) return;
    const size_t grown = std::max(needed, std::min(capacity_ * 2, capacity_ + (size_t{4} << 20)));
    auto bytes = std::make_unique_for_overwrite<char[]>(grown);
    if (size_ > 0) std::memcpy(bytes.get(), bytes_.get(), size_);
    bytes_ = std::move(bytes);
    capacity_ = grown;
  }
  void append(std::string_view text) {
    reserve(text.size());
    if (!text.empty()) std::memcpy(bytes_.get() + size_, text.data(), text.size());
    size_ += text.size();
  }
  void advance(size_t bytes) { size_ += bytes; }
  void clear() {
    size_ = 0;
    if (capacity_ > kBodyKeptBytes + kJsonPadding) {
      bytes_.reset();
      capacity_ = 0;
    }
  }

 private:
  std::unique_ptr<char[]> bytes_;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace

void HttpResponse::clear() {
  status = 200;
  content_type = "application/json";
  body.clear();
  if (body.capacity() > kBodyKeptBytes) body.shrink_to_fit();
  fields.clear();
  close = false;
  memory.reset();
}

class Connection;

class HttpServer::State : public std::enable_shared_from_this<HttpServer::State> {
 public:
  State(const HttpOptions& options, HttpApplication& application, Logger logger)
      : options_(options), application_(application), logger_(std::move(logger)) {}

  Status listen();
  Status run() EXCLUDES(mutex_);
  bool stop(std::chrono::milliseconds grace);

  /// Takes a work slot, or a place in the queue (kParked: `resume` is called later), or neither.
  enum class Entry : uint8_t { kRun, kParked, kRefused };
  Entry enter(const std::shared_ptr<Connection>& connection) EXCLUDES(mutex_);
  /// Gives the slot to the next in the queue.
  void leave() EXCLUDES(mutex_);

  /// Finishes what waits for the medium: true when that was done here, false when a later turn
  /// does it and answers.
  bool take_turn(const std::shared_ptr<Connection>& connection) EXCLUDES(mutex_);

  void begin_handling() EXCLUDES(mutex_);
  void end_handling() EXCLUDES(mutex_);
  void forget(uint64_t id) EXCLUDES(mutex_);
  /// Counts `bytes` against the memory of all bodies; false if that is full.
  bool reserve_body(uint64_t bytes);
  void release_body(uint64_t bytes);

  const HttpOptions options_;
  HttpApplication& application_;
  const Logger logger_;
  HttpCounters counters_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> finished_{false};  // connections are gone, or given up
  EventLoop events_;
  uint16_t port_ = 0;

 private:
  void accept_and_sweep();
  void accept() EXCLUDES(mutex_);
  void serve(Descriptor socket) EXCLUDES(mutex_);
  void look_at_connections() EXCLUDES(mutex_);
  std::shared_ptr<Connection> find(uint64_t id) EXCLUDES(mutex_);
  void work() EXCLUDES(mutex_);
  bool take(EventLoop::Event event) EXCLUDES(mutex_);
  void add_thread() REQUIRES(mutex_);
  void grow_pool() REQUIRES(mutex_);
  size_t threads_at_work() const REQUIRES(mutex_);
  void rest_while_not_needed() EXCLUDES(mutex_);
  void close_all(bool only_idle) EXCLUDES(mutex_);
  void run_turn() EXCLUDES(mutex_);
  void leave_turn() EXCLUDES(mutex_);
  /// Requests that one wait for the medium decided.
  struct Turn {
    std::array<std::shared_ptr<Connection>, kTurnMax> connections;
    size_t count = 0;
  };
  Turn wait_for_turn() EXCLUDES(mutex_);
  void answer_all(const Turn& turn) EXCLUDES(mutex_);

  // Of the thread that accepts and sweeps.
  Descriptor listener_;  // closed under mutex_
  MonotonicTime accept_again_{};
  uint64_t last_connection_ = EventLoop::kNoSocket;

  Mutex mutex_;
  CondVar idle_;
  std::unordered_map<uint64_t, Connection*> connections_ GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<Connection>> parked_ GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<Connection>> unfinished_ GUARDED_BY(mutex_);  // wait for a turn
  bool turn_taken_ GUARDED_BY(mutex_) = false;
  size_t slots_used_ GUARDED_BY(mutex_) = 0;
  size_t handling_ GUARDED_BY(mutex_) = 0;  // threads that block, or may
  size_t running_ GUARDED_BY(mutex_) = 0;   // threads inside work()
  CondVar rested_;
  size_t resting_ GUARDED_BY(mutex_) = 0;  // of those that run, the ones nobody needs
  size_t called_ GUARDED_BY(mutex_) = 0;   // of these, the ones that are to come back
  std::vector<std::thread> threads_ GUARDED_BY(mutex_);
};

/// One client. See the top of the file for who may touch what.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<HttpServer::State> server, uint64_t id, Descriptor socket)
      : server_(std::move(server)),
        id_(id),
        input_(std::make_unique_for_overwrite<char[]>(kInputBytes)),
        fd_(socket.number()),
        socket_(std::move(socket)) {}
  ~Connection() {
    release_body();
    if (counted_in_flight_) server_->counters_.in_flight.add(-1);
    server_->forget(id_);
  }

  /// Waits for a request.
  void start() {
    wait_until(Readiness::kToRead, Phase::kIdle, std::chrono::steady_clock::now() + kIdleTimeout);
  }
  /// Its socket is ready.
  void on_ready();
  /// Runs a parked request that was given a slot.
  void resume();
  /// Answers a parked request whose time is up.
  void expire_parked();
  bool parked_past(MonotonicTime now) const { return request_.deadline <= now; }
  /// The parts of a turn.
  bool ready_to_finish() const { return request_.rest->ready(); }
  void wait_for_medium() { request_.rest->wait(); }
  void finish() { server_->application_.finish(request_, response_); }
  void answer_finished();
  void go_on() {
    guarded([this] { advance(); });
  }
  /// Called by the sweep and by shutdown.
  void cancel_if(MonotonicTime now, bool idle_too, bool all);

 private:
  enum class Phase : uint8_t { kIdle, kHead, kBody, kWrite, kLinger };
  enum class Step : uint8_t { kGoOn, kStop };

  void wait_until(Readiness readiness, Phase phase, MonotonicTime expires) EXCLUDES(mutex_);
  template <typename Work>
  void guarded(Work work);
  void ready() EXCLUDES(mutex_);
  void on_expired();
  void advance();
  Step read_input();
  Step take_head();
  Step take_body();
  Step take_chunks();
  Step take_counted();
  Step receive_body();
  Step body_too_large(int status);
  Step dispatch();
  Step handle_now();
  Step answer_fault(const HttpFault& fault);
  Step send();
  Step flush();
  Step answered();
  void begin_request();
  void linger();
  void drain();
  void close() EXCLUDES(mutex_);
  bool reserve_body(size_t more);
  void release_body();

  const std::shared_ptr<HttpServer::State> server_;
  const uint64_t id_;

  // Input not yet consumed: input_[begin_, end_).
  std::unique_ptr<char[]> input_;
  size_t begin_ = 0;
  size_t end_ = 0;
  size_t scanned_ = 0;
  std::string head_text_;  // the head, kept while the input buffer is reused for the body
  MonotonicTime head_deadline_{};

  Phase phase_ = Phase::kIdle;
  HttpRequest request_;
  HttpResponse response_;
  HttpApplication::Admission admission_ = HttpApplication::Admission::kWork;
  BodyBuffer body_;
  uint64_t body_counted_ = 0;  // what body_ weighs in the server's books
  ChunkDecoder chunks_;
  uint64_t requests_ = 0;
  bool counted_in_flight_ = false;

  std::string out_head_;
  size_t written_ = 0;
  MonotonicTime write_deadline_{};
  bool close_after_ = false;
  uint64_t lingered_ = 0;

  const int fd_;  // of socket_; reading and writing it needs no lock, waiting and closing does
  Mutex mutex_;
  Descriptor socket_ GUARDED_BY(mutex_);
  bool watched_before_ GUARDED_BY(mutex_) = false;
  std::shared_ptr<Connection> waiting_ GUARDED_BY(mutex_);  // itself, while nobody else holds it
  bool aborted_ GUARDED_BY(mutex_) = false;
  bool waiting_idle_ GUARDED_BY(mutex_) = false;
  MonotonicTime expires_ GUARDED_BY(mutex_){};
};

// ---- Waiting -----------------------------------------------------------------------------------

void Connection::wait_until(Readiness readiness, Phase phase, MonotonicTime expires) {
  phase_ = phase;
  {
    MutexLock lock(mutex_);
    if (aborted_) return;
    waiting_idle_ = phase == Phase::kIdle;
    expires_ = expires;
    if (server_->events_.watch(fd_, id_, readiness, watched_before_)) {
      watched_before_ = true;
      waiting_ = shared_from_this();
      return;
    }
  }
  close();
}

void Connection::cancel_if(MonotonicTime now, bool idle_too, bool all) {
  std::shared_ptr<Connection> self;  // the last reference is left outside the lock
  {
    MutexLock lock(mutex_);
    if (all) aborted_ = true;
    if (!waiting_ || (!all && !(idle_too && waiting_idle_) && now < expires_)) return;
    self = std::move(waiting_);
  }
  if (all) return;
  server_->events_.post([self] { self->guarded([&] { self->on_expired(); }); });
}

/// Where a thread of the pool begins to work for this connection. What the handlers cannot get is
/// an answer (HttpApplication::handle); what the transport cannot get ends the connection.
template <typename Work>
void Connection::guarded(Work work) {
  if (as_memory_allows(work)) return;
  server_->counters_.overloaded.add();
  close();
}

void Connection::on_ready() {
  guarded([this] { ready(); });
}

void Connection::ready() {
  {
    MutexLock lock(mutex_);
    if (!waiting_) return;  // its time was up
    waiting_.reset();
  }
  if (phase_ == Phase::kLinger) return drain();
  if (phase_ == Phase::kWrite) {
    if (flush() == Step::kStop) return;
    return advance();
  }
  if (read_input() == Step::kStop) return;
  advance();
}

void Connection::on_expired() {
  switch (phase_) {
    case Phase::kHead:
      if (answer_fault({408, "request_timeout", "the request head did not arrive in time",
                        false}) == Step::kGoOn) {
        advance();
      }
      return;
    case Phase::kBody:
      if (answer_fault({408, "request_timeout", "the request body did not arrive in time",
                        false}) == Step::kGoOn) {
        advance();
      }
      return;
    case Phase::kIdle:
    case Phase::kWrite:
    case Phase::kLinger: close();
  }
}

void Connection::close() {
  MutexLock lock(mutex_);
  aborted_ = true;
  socket_.close();
}

// ---- Reading -----------------------------------------------------------------------------------

/// Reads once into the input buffer, or for a counted body straight into the body buffer.
Connection::Step Connection::read_input() {
  if (phase_ == Phase::kBody && !request_.head.chunked) return receive_body();
  if (begin_ == end_) begin_ = end_ = 0;
  if (begin_ > 0) {
    std::memmove(input_.get(), input_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  const ssize_t got = ::recv(fd_, input_.get() + end_, kInputBytes - end_, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Step::kGoOn;
  if (got <= 0) {
    close();
    return Step::kStop;
  }
  end_ += static_cast<size_t>(got);
  return Step::kGoOn;
}

/// Does all that what has arrived allows: several pipelined requests, or a part of one.
void Connection::advance() {
  Step step = Step::kGoOn;
  while (step == Step::kGoOn) {
    step = phase_ == Phase::kBody ? take_body() : take_head();
  }
}

Connection::Step Connection::take_head() {
  if (begin_ == end_) {
    scanned_ = 0;
    if (server_->stopping_.load()) {
      close();
      return Step::kStop;
    }
    start();
    return Step::kStop;
  }
  if (scanned_ == 0) head_deadline_ = std::chrono::steady_clock::now() + kHeadTimeout;
  const std::string_view text(input_.get() + begin_, end_ - begin_);
  const HeadScan scan = scan_head(text, scanned_);
  if (scan.fault) {
    begin_request();
    if (scan.fault->drop) {
      close();
      return Step::kStop;
    }
    return answer_fault(*scan.fault);
  }
  if (scan.end == 0) {
    scanned_ = text.size();
    wait_until(Readiness::kToRead, Phase::kHead, head_deadline_);
    return Step::kStop;
  }
  head_text_.assign(text.substr(scan.begin, scan.end - scan.begin));
  begin_ += scan.end;
  scanned_ = 0;
  begin_request();
  if (auto fault = parse_head(head_text_, request_.head)) return answer_fault(*fault);
  if (const std::string_view* id = request_.head.find("x-request-id");
      id != nullptr && is_sane_request_id(*id)) {
    request_.request_id = *id;
  } else {
    request_.request_id = fresh_request_id();
  }
  if (server_->stopping_.load()) {
    return answer_fault({503, "not_ready", "the server is shutting down", false});
  }
  admission_ = server_->application_.admit(request_, response_);
  if (admission_ == HttpApplication::Admission::kAnswered) {
    // Unread body bytes must never be taken for a request.
    if (request_.head.has_body()) response_.close = true;
    return send();
  }
  if (request_.head.content_length.value_or(0) > server_->options_.body_bytes_max) {
    return body_too_large(413);
  }
  if (request_.head.expect_continue && request_.head.has_body() && begin_ == end_) {
    constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    if (::send(fd_, kContinue.data(), kContinue.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(kContinue.size())) {
      close();
      return Step::kStop;
    }
  }
  phase_ = Phase::kBody;
  return Step::kGoOn;
}

void Connection::begin_request() {
  ++requests_;
  request_.head.fields.clear();
  request_.body = {};
  request_.route = nullptr;
  request_.path_params.clear();
  request_.query.clear();
  request_.rest.reset();
  request_.memory.reset();
  request_.request_id.clear();
  request_.started = std::chrono::steady_clock::now();
  request_.deadline = request_.started + server_->options_.request_timeout;
  response_.clear();
  release_body();
  chunks_.reset();
  server_->counters_.in_flight.add(1);
  counted_in_flight_ = true;
}

Connection::Step Connection::body_too_large(int status) {
  if (status == 413) {
    return answer_fault({413, "payload_too_large",
                         fmt::format("the body is over {} bytes", server_->options_.body_bytes_max),
                         false});
  }
  server_->counters_.overloaded.add();
  return answer_fault({503, "overloaded", "too many bodies are being read", false});
}

Connection::Step Connection::take_body() {
  if (request_.head.chunked) return take_chunks();
  if (request_.head.content_length.value_or(0) > 0) return take_counted();
  return dispatch();
}

Connection::Step Connection::take_counted() {
  const uint64_t length = *request_.head.content_length;
  if (body_.size() < length && begin_ < end_) {
    const size_t take =
        static_cast<size_t>(std::min<uint64_t>(length - body_.size(), end_ - begin_));
    if (!reserve_body(take)) return body_too_large(503);
    body_.append({input_.get() + begin_, take});
    begin_ += take;
  }
  if (body_.size() == length) return dispatch();
  wait_until(Readiness::kToRead, Phase::kBody, request_.deadline);
  return Step::kStop;
}

/// Reads straight into the body buffer, with no copy. Never past the end of this body.
Connection::Step Connection::receive_body() {
  const size_t left = static_cast<size_t>(*request_.head.content_length - body_.size());
  const size_t step = body_.size() < kBodyGrowBytes ? kBodyGrowBytes : kBodyGrownBytes;
  const size_t room = std::min(left, std::max(step, body_.size()));
  if (!reserve_body(room)) return body_too_large(503);
  const ssize_t got = ::recv(fd_, body_.data() + body_.size(), room, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Step::kGoOn;
  if (got <= 0) {
    close();
    return Step::kStop;
  }
  body_.advance(static_cast<size_t>(got));
  return Step::kGoOn;
}

Connection::Step Connection::take_chunks() {
  while (begin_ < end_) {
    size_t used = 0;
    std::string_view data;
    const auto progress = chunks_.feed({input_.get() + begin_, end_ - begin_},
                                       server_->options_.body_bytes_max, used, data);
    begin_ += used;
    if (!data.empty()) {
      if (!reserve_body(data.size())) return body_too_large(503);
      body_.append(data);
    }
    switch (progress) {
      case ChunkDecoder::Progress::kMore: break;
      case ChunkDecoder::Progress::kDone: return dispatch();
      case ChunkDecoder::Progress::kTooLarge: return body_too_large(413);
      case ChunkDecoder::Progress::kBad:
        return answer_fault({400, "invalid_argument", std::string(chunks_.problem()), false});
    }
  }
  wait_until(Readiness::kToRead, Phase::kBody, request_.deadline);
  return Step::kStop;
}

bool Connection::reserve_body(size_t more) {
  const size_t before = body_.capacity();
  if (body_.size() + more + kJsonPadding > before) {
    // Growing may hold the old and the new buffer for a moment; the books count the new one.
    body_.reserve(more);
  }
  const uint64_t grown = body_.capacity() - std::min<uint64_t>(body_counted_, body_.capacity());
  if (grown == 0) return true;
  if (!server_->reserve_body(grown)) return false;
  body_counted_ += grown;
  return true;
}

void Connection::release_body() {
  body_.clear();
  if (body_counted_ > 0) server_->release_body(body_counted_);
  body_counted_ = 0;
}

// ---- Handling ----------------------------------------------------------------------------------

Connection::Step Connection::dispatch() {
  body_.reserve(0);
  std::memset(body_.data() + body_.size(), 0, kJsonPadding);
  request_.body = body_.view();
  if (admission_ == HttpApplication::Admission::kImmediate) {
    server_->application_.handle(request_, response_);
    return send();
  }
  switch (server_->enter(shared_from_this())) {
    case HttpServer::State::Entry::kRun: return handle_now();
    case HttpServer::State::Entry::kParked: return Step::kStop;
    case HttpServer::State::Entry::kRefused: break;
  }
  server_->counters_.overloaded.add();
  server_->application_.answer_fault({503, "overloaded", "too many requests are waiting", false},
                                     response_);
  return send();
}

/// REQUIRES: a work slot.
Connection::Step Connection::handle_now() {
  server_->begin_handling();
  server_->application_.handle(request_, response_);
  server_->end_handling();
  if (request_.rest != nullptr && !server_->take_turn(shared_from_this())) return Step::kStop;
  server_->leave();
  return send();
}

/// Other connections may wait for this thread: a request that has arrived already is another's.
void Connection::answer_finished() {
  guarded([&] {
    server_->leave();
    if (send() == Step::kStop) return;
    if (begin_ == end_) return advance();
    server_->events_.post([self = shared_from_this()] { self->go_on(); });
  });
}

void Connection::resume() {
  guarded([this] {
    if (handle_now() == Step::kGoOn) advance();
  });
}

void Connection::expire_parked() {
  guarded([this] {
    server_->application_.answer_fault(
        {408, "request_timeout", "no time was left when a work slot became free", false},
        response_);
    if (send() == Step::kGoOn) advance();
  });
}

/// Answers for the protocol layer and closes: after a fault nobody knows where the next request
/// begins.
Connection::Step Connection::answer_fault(const HttpFault& fault) {
  if (!counted_in_flight_) begin_request();
  if (request_.request_id.empty()) request_.request_id = fresh_request_id();
  response_.clear();
  server_->application_.answer_fault(fault, response_);
  response_.close = true;
  return send();
}

// ---- Writing -----------------------------------------------------------------------------------

Connection::Step Connection::send() {
  const bool head_only = request_.head.method == HttpMethod::kHead;
  close_after_ = response_.close || !request_.head.keep_alive || server_->stopping_.load() ||
                 requests_ >= kRequestsPerConnectionMax;
  out_head_.clear();
  auto out = std::back_inserter(out_head_);
  fmt::format_to(out,
                 "HTTP/1.1 {} {}\r\ncontent-type: {}\r\ncontent-length: {}\r\nx-request-id: {}\r\n",
                 response_.status, reason_of(response_.status), response_.content_type,
                 response_.body.size(), request_.request_id);
  for (const auto& [name, value] : response_.fields) {
    fmt::format_to(out, "{}: {}\r\n", name, value);
  }
  if (close_after_) {
    out_head_ += "connection: close\r\n";
  } else if (request_.head.version_minor == 0) {
    out_head_ += "connection: keep-alive\r\n";
  }
  out_head_ += "\r\n";
  if (head_only) response_.body.clear();
  written_ = 0;
  const uint64_t bytes = out_head_.size() + response_.body.size();
  write_deadline_ = std::chrono::steady_clock::now() + kWriteTimeout +
                    std::chrono::seconds(bytes / kWriteBytesPerSecondMin);
  release_body();
  return flush();
}

Connection::Step Connection::flush() {
  while (true) {
    std::array<iovec, 2> parts{};
    size_t count = 0;
    if (written_ < out_head_.size()) {
      parts[count++] = {out_head_.data() + written_, out_head_.size() - written_};
    }
    const size_t body_from = written_ > out_head_.size() ? written_ - out_head_.size() : 0;
    if (body_from < response_.body.size()) {
      parts[count++] = {response_.body.data() + body_from, response_.body.size() - body_from};
    }
    if (count == 0) return answered();
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = count;
    const ssize_t sent = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) {
      wait_until(Readiness::kToWrite, Phase::kWrite, write_deadline_);
      return Step::kStop;
    }
    if (sent < 0) {
      close();
      return Step::kStop;
    }
    written_ += static_cast<size_t>(sent);
  }
}

Connection::Step Connection::answered() {
  const uint64_t us = elapsed_us(request_.started, std::chrono::steady_clock::now());
  server_->application_.finished(request_, response_, us);
  server_->counters_.in_flight.add(-1);
  counted_in_flight_ = false;
  if (close_after_) {
    linger();
    return Step::kStop;
  }
  phase_ = Phase::kHead;
  return Step::kGoOn;
}

/// Ends our side and swallows what the peer still sends, so that it can read the answer.
void Connection::linger() {
  ::shutdown(fd_, SHUT_WR);
  lingered_ = 0;
  begin_ = end_ = 0;
  head_deadline_ = std::chrono::steady_clock::now() + kLingerTimeout;
  drain();
}

void Connection::drain() {
  while (lingered_ < kLingerBytesMax) {
    const ssize_t got = ::recv(fd_, input_.get(), kInputBytes, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) {
      return wait_until(Readiness::kToRead, Phase::kLinger, head_deadline_);
    }
    if (got <= 0) break;
    lingered_ += static_cast<uint64_t>(got);
    if (std::chrono::steady_clock::now() >= head_deadline_) break;
  }
  close();
}

// ---- The server --------------------------------------------------------------------------------

Status HttpServer::State::listen() {
  RETURN_IF_ERROR(events_.open());
  boost::system::error_code error;
  const auto address = boost::asio::ip::make_address(options_.address, error);
  if (error) {
    return invalid_argument(
        fmt::format("bind address must be an IP address: got {}", options_.address));
  }
  boost::asio::ip::tcp::endpoint endpoint(address, options_.port);
  listener_ = Descriptor(::socket(endpoint.protocol().family(),
                                  SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  const int on = 1;
  auto size = static_cast<socklen_t>(endpoint.size());
  if (!listener_.is_open() ||
      ::setsockopt(listener_.number(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      ::bind(listener_.number(), endpoint.data(), size) != 0 ||
      ::listen(listener_.number(), kListenBacklog) != 0 ||
      ::getsockname(listener_.number(), endpoint.data(), &size) != 0) {
    return io_error(fmt::format("cannot listen on {}:{}: {}", options_.address, options_.port,
                                std::strerror(errno)));
  }
  port_ = endpoint.port();
  return {};
}

Status HttpServer::State::run() {
  MutexLock lock(mutex_);
  try {
    threads_.emplace_back([self = shared_from_this()] { self->accept_and_sweep(); });
  } catch (const std::system_error&) {
    return io_error("the system refuses a thread");
  }
  const size_t cores = std::max(1u, std::thread::hardware_concurrency());
  for (size_t i = 0; i < cores + kSpareThreads; ++i) add_thread();
  return {};
}

void HttpServer::State::add_thread() {
  try {
    threads_.emplace_back([self = shared_from_this()] { self->work(); });
    ++running_;
    counters_.threads.set(static_cast<int64_t>(running_));
  } catch (const std::system_error&) {
    logger_.warning("server: the system refuses another thread");
  } catch (const std::bad_alloc&) {
    // Those that run go on.
  }
}

/// Holds nothing afterwards: who is done with a connection may be waited for.
bool HttpServer::State::take(EventLoop::Event event) {
  if (event.ended) return false;
  if (event.work != nullptr) {
    event.work();
  } else if (const auto connection = find(event.socket)) {
    connection->on_ready();
  }
  return true;
}

void HttpServer::State::work() {
  while (take(events_.next())) rest_while_not_needed();
  MutexLock lock(mutex_);
  --running_;
  idle_.notify_all();
}

std::shared_ptr<Connection> HttpServer::State::find(uint64_t id) {
  MutexLock lock(mutex_);
  const auto found = connections_.find(id);
  return found == connections_.end() ? nullptr : found->second->weak_from_this().lock();
}

void HttpServer::State::accept_and_sweep() {
  MonotonicTime sweep_at{};
  while (!finished_.load()) {
    const MonotonicTime now = std::chrono::steady_clock::now();
    if (now >= sweep_at) {
      as_memory_allows([this] { look_at_connections(); });
      sweep_at = now + kSweepInterval;
    }
    const int listener = now < accept_again_ ? -1 : listener_.number();
    std::array<pollfd, 2> waits{{{events_.end_descriptor(), POLLIN, 0}, {listener, POLLIN, 0}}};
    ::poll(waits.data(), waits.size(), static_cast<int>(kSweepInterval.count()));
    if (waits[1].revents != 0) accept();
  }
}

void HttpServer::State::accept() {
  if (stopping_.load()) {
    MutexLock lock(mutex_);
    return listener_.close();
  }
  Descriptor socket(::accept4(listener_.number(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (socket.is_open()) return serve(std::move(socket));
  if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
  // Out of descriptors or memory: those who are connected are unharmed, new ones wait.
  counters_.accept_failures.add();
  accept_again_ = std::chrono::steady_clock::now() + kAcceptBackoff;
}

void HttpServer::State::serve(Descriptor socket) {
  {
    MutexLock lock(mutex_);
    if (connections_.size() >= options_.connections_max) return counters_.connections_refused.add();
  }
  const int on = 1;
  ::setsockopt(socket.number(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const uint64_t id = ++last_connection_;
  // Without memory for another one, it is closed.
  const bool served = as_memory_allows([&] {
    const auto connection = std::make_shared<Connection>(shared_from_this(), id, std::move(socket));
    {
      MutexLock lock(mutex_);
      connections_.emplace(id, connection.get());
      counters_.connections.set(static_cast<int64_t>(connections_.size()));
    }
    connection->start();
  });
  if (!served) counters_.connections_refused.add();
}

void HttpServer::State::forget(uint64_t id) {
  MutexLock lock(mutex_);
  connections_.erase(id);
  counters_.connections.set(static_cast<int64_t>(connections_.size()));
  if (connections_.empty()) idle_.notify_all();
}

void HttpServer::State::look_at_connections() {
  const MonotonicTime now = std::chrono::steady_clock::now();
  std::vector<std::shared_ptr<Connection>> late;
  std::vector<std::shared_ptr<Connection>> all;
  {
    MutexLock lock(mutex_);
    const auto kept = std::stable_partition(parked_.begin(), parked_.end(),
                                            [&](const auto& c) { return !c->parked_past(now); });
    late.assign(std::make_move_iterator(kept), std::make_move_iterator(parked_.end()));
    parked_.erase(kept, parked_.end());
    counters_.parked.set(static_cast<int64_t>(parked_.size()));
    all.reserve(connections_.size());
    for (const auto& [id, connection] : connections_) {
      // A connection that is being destroyed has no owner any more; it forgets itself.
      if (auto owned = connection->weak_from_this().lock()) all.push_back(std::move(owned));
    }
  }
  for (const auto& connection : late) {
    events_.post([connection] { connection->expire_parked(); });
  }
  for (const auto& connection : all) connection->cancel_if(now, stopping_.load(), false);
}

HttpServer::State::Entry HttpServer::State::enter(const std::shared_ptr<Connection>& connection) {
  MutexLock lock(mutex_);
  if (slots_used_ < options_.concurrency_max) {
    ++slots_used_;
    return Entry::kRun;
  }
  // As many may wait as may work: beyond that the wait would outlast the deadline anyway.
  if (parked_.size() >= options_.concurrency_max) return Entry::kRefused;
  parked_.push_back(connection);
  counters_.parked.set(static_cast<int64_t>(parked_.size()));
  return Entry::kParked;
}

void HttpServer::State::leave() {
  std::shared_ptr<Connection> next;
  {
    MutexLock lock(mutex_);
    if (parked_.empty()) {
      --slots_used_;
      return;
    }
    next = std::move(parked_.front());
    parked_.pop_front();
    counters_.parked.set(static_cast<int64_t>(parked_.size()));
  }
  // Without memory to hand it on, the slot is used here and now, one request after the other.
  if (!as_memory_allows([&] { events_.post([next] { next->resume(); }); })) next->resume();
}

bool HttpServer::State::take_turn(const std::shared_ptr<Connection>& connection) {
  bool turn = false;
  if (!connection->ready_to_finish()) {
    MutexLock lock(mutex_);
    turn = !turn_taken_;
    turn_taken_ = true;
    // Without memory for a place in the queue it waits here, beside the turn.
    if (!turn &&
        as_memory_allows([&]() NO_THREAD_SAFETY_ANALYSIS { unfinished_.push_back(connection); })) {
      return false;
    }
  }
  begin_handling();
  if (turn) {
    connection->wait_for_medium();
    leave_turn();
  }
  connection->finish();
  end_handling();
  return true;
}

/// To another thread, or to nobody when nothing waits for it. REQUIRES: the turn.
void HttpServer::State::leave_turn() {
  while (true) {
    {
      MutexLock lock(mutex_);
      turn_taken_ = !unfinished_.empty();
      if (!turn_taken_) return;
    }
    const bool handed_on = as_memory_allows(
        [this] { events_.post([self = shared_from_this()] { self->run_turn(); }); });
    if (handed_on) return;
    answer_all(wait_for_turn());  // without memory to hand it on: here and now
  }
}

void HttpServer::State::run_turn() {
  const Turn turn = wait_for_turn();
  leave_turn();
  answer_all(turn);
}

/// Waits for the first of the requests in the queue, and takes those that were decided with it.
/// REQUIRES: the turn, and something that waits for it.
HttpServer::State::Turn HttpServer::State::wait_for_turn() {
  Turn turn;
  {
    MutexLock lock(mutex_);
    turn.connections[turn.count++] = std::move(unfinished_.front());
    unfinished_.pop_front();
  }
  begin_handling();
  turn.connections[0]->wait_for_medium();
  end_handling();
  MutexLock lock(mutex_);
  while (turn.count < kTurnMax && !unfinished_.empty() && unfinished_.front()->ready_to_finish()) {
    turn.connections[turn.count++] = std::move(unfinished_.front());
    unfinished_.pop_front();
  }
  return turn;
}

void HttpServer::State::answer_all(const Turn& turn) {
  for (size_t i = 0; i < turn.count; ++i) {
    begin_handling();  // a checkpoint may be due
    turn.connections[i]->finish();
    end_handling();
    turn.connections[i]->answer_finished();
  }
}

void HttpServer::State::begin_handling() {
  MutexLock lock(mutex_);
  ++handling_;
  grow_pool();
}

size_t HttpServer::State::threads_at_work() const {
  return running_ - resting_ + called_;
}

/// Sees to it that there are threads free of blocking work.
void HttpServer::State::grow_pool() {
  if (threads_at_work() >= handling_ + kSpareThreads) return;
  if (resting_ > called_) {
    ++called_;
    rested_.notify_one();
  } else if (running_ < options_.concurrency_max + kSpareThreads) {
    add_thread();
  }
}

/// Between two pieces of work. Each thread that waits inside the event loop may be woken for the
/// next event, and those at work come too late for it: a few of them are faster than many.
void HttpServer::State::rest_while_not_needed() {
  MutexLock lock(mutex_);
  if (threads_at_work() <= handling_ + kIdleThreadsMax || finished_.load()) return;
  ++resting_;
  while (called_ == 0 && !finished_.load()) rested_.wait(mutex_);
  if (called_ > 0) --called_;
  --resting_;
}

void HttpServer::State::end_handling() {
  MutexLock lock(mutex_);
  --handling_;
}

bool HttpServer::State::reserve_body(uint64_t bytes) {
  counters_.body_bytes.add(static_cast<int64_t>(bytes));
  if (counters_.body_bytes.value() <= static_cast<int64_t>(options_.body_memory_bytes_max)) {
    return true;
  }
  counters_.body_bytes.add(-static_cast<int64_t>(bytes));
  return false;
}

void HttpServer::State::release_body(uint64_t bytes) {
  counters_.body_bytes.add(-static_cast<int64_t>(bytes));
}

void HttpServer::State::close_all(bool only_idle) {
  std::vector<std::shared_ptr<Connection>> all;
  {
    MutexLock lock(mutex_);
    for (const auto& [id, connection] : connections_) {
      if (auto owned = connection->weak_from_this().lock()) all.push_back(std::move(owned));
    }
  }
  const MonotonicTime now = std::chrono::steady_clock::now();
  for (const auto& connection : all) connection->cancel_if(now, only_idle, !only_idle);
}

bool HttpServer::State::stop(std::chrono::milliseconds grace) {
  const auto deadline = std::chrono::steady_clock::now() + grace;
  if (!stopping_.exchange(true)) {
    // Refuses new ones at once, and wakes the thread that closes it.
    MutexLock lock(mutex_);
    ::shutdown(listener_.number(), SHUT_RDWR);
  }
  close_all(true);
  {
    MutexLock lock(mutex_);
    while (!connections_.empty() && idle_.wait_until(mutex_, deadline)) {
    }
  }
  std::deque<std::shared_ptr<Connection>> parked;
  {
    MutexLock lock(mutex_);
    parked.swap(parked_);  // they die outside the lock: each calls forget()
  }
  parked.clear();
  close_all(false);
  // work() returns in every thread that is not inside a handler.
  if (!finished_.exchange(true)) {
    {
      MutexLock lock(mutex_);
      rested_.notify_all();
    }
    events_.end();
  }
  std::vector<std::thread> threads;
  bool done = false;
  {
    MutexLock lock(mutex_);
    while (running_ > 0 && idle_.wait_until(mutex_, deadline)) {
    }
    done = running_ == 0;
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) {
    if (done) {
      thread.join();
    } else {
      thread.detach();
    }
  }
  return done;
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(const HttpOptions& options,
                                                      HttpApplication& application, Logger logger) {
  auto state = std::make_shared<State>(options, application, std::move(logger));
  RETURN_IF_ERROR(state->listen());
  RETURN_IF_ERROR(state->run());
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

HttpServer::~HttpServer() {
  stop(std::chrono::milliseconds(0));
}

uint16_t HttpServer::port() const {
  return state_->port_;
}
const HttpCounters& HttpServer::counters() const {
  return state_->counters_;
}
bool HttpServer::stopping() const {
  return state_->stopping_.load();
}

bool HttpServer::stop(std::chrono::milliseconds grace) {
  return state_->stop(grace);
}

}  // namespace aionbd
