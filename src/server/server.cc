#include "server/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "base/memory_guard.h"
#include "base/mutex.h"
#include "server/context.h"
#include "server/http.h"
#include "server/routes.h"
#include "server/wire.h"

namespace aionbd {
namespace {

/// Seconds a refused client should wait; short, because overload here is a matter of queueing.
constexpr std::string_view kRetryAfterSeconds = "1";

/// Memory that reading one byte of a body takes, the byte itself included: the parser's marks, then
/// points or queries, then the log record.
constexpr uint64_t kHeldPerBodyByte = 8;
/// Answers below this are not counted; a connection keeps as much anyway.
constexpr size_t kAnswerBytesCounted = 64 * 1024;
/// Of a memory budget: what bodies may take while they arrive.
constexpr uint64_t kBodyShare = 4;

/// application/json, with no parameter but charset=utf-8.
bool is_json_type(const std::string_view* value) {
  if (value == nullptr) return false;
  const size_t semicolon = value->find(';');
  std::string_view type = value->substr(0, semicolon);
  while (!type.empty() && type.back() == ' ') type.remove_suffix(1);
  if (!equals_ignoring_case(type, "application/json")) return false;
  if (semicolon == std::string_view::npos) return true;
  std::string_view parameter = value->substr(semicolon + 1);
  while (!parameter.empty() && parameter.front() == ' ') parameter.remove_prefix(1);
  return equals_ignoring_case(parameter, "charset=utf-8") ||
         equals_ignoring_case(parameter, "charset=\"utf-8\"");
}

void answer(HttpResponse& response, int status, std::string_view code, std::string_view message) {
  response.status = status;
  response.content_type = "application/json";
  response.body = error_body(code, message);
  response.fields.clear();
  if (status == 503) response.fields.emplace_back("retry-after", kRetryAfterSeconds);
}

}  // namespace

class Server::State : public HttpApplication {
 public:
  State(const Settings& settings, Logger logger) : context_(settings, logger), logger_(logger) {}

  Status listen();
  void load(DatabaseFactory factory);
  Status wait();
  void request_stop() EXCLUDES(mutex_);
  uint16_t port() const { return http_->port(); }
  bool ready() const { return context_.database() != nullptr; }
  void finish();

  Admission admit(HttpRequest& request, HttpResponse& response) override;
  void handle(HttpRequest& request, HttpResponse& response) override;
  void finish(HttpRequest& request, HttpResponse& response) override;
  void answer_fault(const HttpFault& fault, HttpResponse& response) override;
  void finished(const HttpRequest& request, const HttpResponse& response, uint64_t us) override;

 private:
  template <typename Work>
  void answer_with(HttpRequest& request, HttpResponse& response, Work work);
  Status work_on(HttpRequest& request, HttpResponse& response);
  Status count_answer(const HttpRequest& request, HttpResponse& response);
  void answer_status(const Status& status, const HttpRequest& request, HttpResponse& response);

  ServerContext context_;
  const Logger logger_;
  std::unique_ptr<HttpServer> http_;
  std::thread loader_;
  bool done_ = false;  // wait() has stopped everything; its caller's thread only
  Status result_;

  Mutex mutex_;
  CondVar wake_;
  bool stop_requested_ GUARDED_BY(mutex_) = false;
  Status load_status_ GUARDED_BY(mutex_);
  std::unique_ptr<Database> database_ GUARDED_BY(mutex_);
};

Status Server::State::listen() {
  const Settings& settings = context_.settings();
  HttpOptions options;
  options.address = settings.bind_address();
  options.port = settings.bind_port();
  options.body_bytes_max = settings.max_body_bytes;
  options.body_memory_bytes_max = settings.max_body_memory_bytes;
  if (const uint64_t budget = settings.memory_budget(); budget != 0) {
    options.body_memory_bytes_max = std::min(options.body_memory_bytes_max, budget / kBodyShare);
  }
  options.concurrency_max = settings.max_concurrency;
  options.connections_max = settings.max_connections;
  options.request_timeout = std::chrono::milliseconds(settings.request_timeout_ms);
  ASSIGN_OR_RETURN(http_, HttpServer::start(options, *this, logger_));
  context_.set_http(&http_->counters());
  logger_.info(fmt::format("server: listening address={} port={}", options.address, port()));
  return {};
}

void Server::State::load(DatabaseFactory factory) {
  loader_ = std::thread([this, factory = std::move(factory)] {
    Result<std::unique_ptr<Database>> opened = within_memory(factory);
    MutexLock lock(mutex_);
    if (opened.has_value()) {
      database_ = std::move(opened).value();
      context_.set_database(database_.get());
      logger_.info(fmt::format("server: ready after_ms={}", context_.uptime_ms()));
    } else {
      load_status_ = opened.error();
      stop_requested_ = true;
      wake_.notify_all();
    }
  });
}

void Server::State::request_stop() {
  MutexLock lock(mutex_);
  stop_requested_ = true;
  wake_.notify_all();
}

Status Server::State::wait() {
  {
    MutexLock lock(mutex_);
    while (!stop_requested_) wake_.wait(mutex_);
  }
  finish();
  return result_;
}

void Server::State::finish() {
  if (done_) return;
  done_ = true;
  logger_.info("server: stopping");
  context_.set_stopping();
  const bool drained = http_ == nullptr || http_->stop(kStopGrace);
  if (!drained) {
    result_ = deadline_exceeded("requests were still in progress when the time to stop ran out");
    // Those threads hold the database and this object: both are left to the end of the process.
    loader_.detach();
    return;
  }
  if (loader_.joinable()) loader_.join();
  std::unique_ptr<Database> closing;
  {
    MutexLock lock(mutex_);
    context_.set_database(nullptr);
    closing = std::move(database_);
    result_ = load_status_;
  }
  closing.reset();
  logger_.info("server: stopped");
}

HttpApplication::Admission Server::State::admit(HttpRequest& request, HttpResponse& response) {
  const HttpHead& head = request.head;
  RouteMatch match = find_route(head.method, head.path);
  if (!match.problem.empty()) {
    answer(response, 400, "invalid_argument", match.problem);
    return Admission::kAnswered;
  }
  if (match.route == nullptr) {
    if (match.allow.empty()) {
      answer(response, 404, "not_found", "no such route");
    } else {
      answer(response, 405, "method_not_allowed",
             fmt::format("this path knows {} only", match.allow));
      response.fields.emplace_back("allow", match.allow);
    }
    return Admission::kAnswered;
  }
  request.route = match.route;
  request.path_params = std::move(match.params);
  std::string problem;
  auto query = parse_query(head.query, problem);
  if (!query) {
    answer(response, 400, "invalid_argument", problem);
    return Admission::kAnswered;
  }
  request.query = std::move(*query);
  if (match.route->json_body && !is_json_type(head.find("content-type"))) {
    answer(response, 400, "invalid_argument", "content-type must be application/json");
    return Admission::kAnswered;
  }
  const bool immediate = match.route->route_class == RouteClass::kHealth;
  if (!immediate && context_.database() == nullptr) {
    answer_status(unavailable("the engine is not loaded yet"), request, response);
    return Admission::kAnswered;
  }
  return immediate ? Admission::kImmediate : Admission::kWork;
}

/// What `work` made of the response, or its error.
template <typename Work>
void Server::State::answer_with(HttpRequest& request, HttpResponse& response, Work work) {
  // What is allocated for the answer to a lack of memory is little, but may be missing, too.
  const bool answered = as_memory_allows([&] {
    const Status status = within_memory(work);
    if (!status.ok()) answer_status(status, request, response);
  });
  if (answered) return;
  response.status = wire_error_of(Code::kResourceExhausted).status;
  response.fields.clear();
  response.body.clear();
  response.close = true;
}

void Server::State::handle(HttpRequest& request, HttpResponse& response) {
  answer_with(request, response, [&] { return work_on(request, response); });
  if (request.rest == nullptr) request.memory.reset();
}

void Server::State::finish(HttpRequest& request, HttpResponse& response) {
  answer_with(request, response, [&]() -> Status {
    RETURN_IF_ERROR(request.rest->finish(response));
    return count_answer(request, response);
  });
  request.rest.reset();
  request.memory.reset();
}

Status Server::State::work_on(HttpRequest& request, HttpResponse& response) {
  Database* const database = context_.database();
  if (database != nullptr && !request.body.empty()) {
    ASSIGN_OR_RETURN(request.memory, database->hold_memory(request.body.size() * kHeldPerBodyByte));
  }
  Call call{context_, request, response, request.rest};
  RETURN_IF_ERROR(request.route->handler(call));
  return count_answer(request, response);
}

/// Counts a large answer in the memory budget until it is sent.
Status Server::State::count_answer(const HttpRequest& request, HttpResponse& response) {
  Database* const database = context_.database();
  if (database != nullptr && response.body.size() >= kAnswerBytesCounted) {
    auto held = database->hold_memory(response.body.capacity());
    // What was written is not taken back for want of memory to say so.
    const RouteClass route_class = request.route->route_class;
    const bool changes = route_class == RouteClass::kWrite || route_class == RouteClass::kAdmin;
    if (!held.has_value() && !changes) return held.error();
    if (held.has_value()) response.memory = *std::move(held);
  }
  return {};
}

void Server::State::answer_status(const Status& status, const HttpRequest& request,
                                  HttpResponse& response) {
  const WireError error = wire_error_of(status.code());
  if (error.status >= 500 && request.route != nullptr &&
      request.route->route_class != RouteClass::kHealth) {
    logger_.warning(fmt::format("server: request failed request_id={} route=\"{} {}\" error=\"{}\"",
                                request.request_id, method_name(request.route->method),
                                request.route->pattern, status.to_string()));
  }
  answer(response, error.status, error.code, public_message(status));
}

void Server::State::answer_fault(const HttpFault& fault, HttpResponse& response) {
  answer(response, fault.status, fault.code, fault.message);
}

void Server::State::finished(const HttpRequest& request, const HttpResponse& response,
                             uint64_t us) {
  ServerMetrics& metrics = context_.metrics();
  metrics.requests.add();
  if (response.status < 300) {
    metrics.responses_2xx.add();
  } else if (response.status < 500) {
    metrics.responses_4xx.add();
  } else {
    metrics.responses_5xx.add();
  }
  metrics.duration_us.add(us);
  metrics.duration_us_max.raise_to(static_cast<int64_t>(us));
  const RouteClass route_class =
      request.route == nullptr ? RouteClass::kHealth : request.route->route_class;
  metrics.duration[static_cast<size_t>(route_class)].observe_us(us);
  if (context_.settings().log_level != "debug") return;
  logger_.debug(fmt::format(
      "http: request method={} route={} status={} us={} request_bytes={} response_bytes={} "
      "request_id={}",
      method_name(request.head.method), request.route == nullptr ? "-" : request.route->pattern,
      response.status, us, request.body.size(), response.body.size(), request.request_id));
}

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}

Server::~Server() {
  state_->request_stop();
  const Status status = state_->wait();
  // Abandoned requests still use the state; see wait().
  if (status.code() == Code::kDeadlineExceeded) static_cast<void>(state_.release());
}

Result<std::unique_ptr<Server>> Server::start(const Settings& settings, DatabaseFactory factory,
                                              Logger logger) {
  auto state = std::make_unique<State>(settings, std::move(logger));
  RETURN_IF_ERROR(state->listen());
  state->load(std::move(factory));
  return std::unique_ptr<Server>(new Server(std::move(state)));
}

uint16_t Server::port() const {
  return state_->port();
}
bool Server::ready() const {
  return state_->ready();
}
void Server::request_stop() {
  state_->request_stop();
}
Status Server::wait() {
  return state_->wait();
}

}  // namespace aionbd
