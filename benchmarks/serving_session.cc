// Answers requests as TensorFlow Serving does: LoadSavedModel, then Session::Run. For tests and for latencies.
//
//   session MODEL_DIR REQUESTS ANSWERS [REPEATS]
//
// REQUESTS and ANSWERS hold messages, each after its length in four bytes: NodeDef, because it carries tensors by name
// and TensorFlow's Python has it. In a request the attributes are the tensors to feed and the inputs are the names of
// those to fetch; in an answer the attributes are the fetched tensors, op is the status code and name its message. With
// REPEATS each request is run that often, and each run's microseconds are printed on one line.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/node_def.pb.h"

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: session MODEL_DIR REQUESTS ANSWERS [REPEATS]\n");
    return 2;
  }
  const int repeats = argc > 4 ? std::stoi(argv[4]) : 1;
  tensorflow::SessionOptions options;
  options.config.set_intra_op_parallelism_threads(1);
  options.config.set_inter_op_parallelism_threads(1);
  tensorflow::SavedModelBundle bundle;
  const auto loaded = tensorflow::LoadSavedModel(options, tensorflow::RunOptions(), argv[1], {"serve"}, &bundle);
  if (!loaded.ok()) {
    std::fprintf(stderr, "%s\n", loaded.ToString().c_str());
    return 1;
  }
  std::ifstream requests(argv[2], std::ios::binary);
  std::ofstream answers(argv[3], std::ios::binary);
  std::uint32_t length;
  while (requests.read(reinterpret_cast<char*>(&length), sizeof length)) {
    std::string bytes(length, '\0');
    requests.read(&bytes[0], length);
    tensorflow::NodeDef request;
    if (!request.ParseFromString(bytes)) return 1;
    std::vector<std::pair<std::string, tensorflow::Tensor>> feeds;
    for (const auto& [name, value] : request.attr()) {
      tensorflow::Tensor tensor;
      if (!tensor.FromProto(value.tensor())) return 1;
      feeds.emplace_back(name, tensor);
    }
    const std::vector<std::string> fetches(request.input().begin(), request.input().end());
    std::vector<tensorflow::Tensor> outputs;
    tensorflow::NodeDef answer;
    for (int run = 0; run < repeats; ++run) {
      const auto start = std::chrono::steady_clock::now();
      const auto status = bundle.session->Run(feeds, fetches, {}, &outputs);
      const std::chrono::duration<double, std::micro> taken = std::chrono::steady_clock::now() - start;
      if (repeats > 1) std::printf("%.1f ", taken.count());
      answer.set_op(std::to_string(static_cast<int>(status.code())));
      answer.set_name(std::string(status.message()));
    }
    if (repeats > 1) std::printf("\n");
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      outputs[i].AsProtoField((*answer.mutable_attr())[fetches[i]].mutable_tensor());
    }
    const std::string serialized = answer.SerializeAsString();
    length = static_cast<std::uint32_t>(serialized.size());
    answers.write(reinterpret_cast<const char*>(&length), sizeof length).write(serialized.data(), length);
  }
  return 0;
}
