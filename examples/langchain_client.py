"""LangChain by base URL: `ChatOpenAI` with the model `auto`, alone and in a batch.

    pip install langchain-openai
    traitroute serve --port 8000
    python examples/langchain_client.py

OPENAI_BASE_URL and OPENAI_API_KEY name the server and its key, where it wants one.
"""

import os
import sys

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

REMARKS = (
    "The soup was cold and the waiter rude.",
    "We will certainly come back.",
)


def main() -> None:
    """Rate each remark; the server answers the batch with the skill that the prompt needs."""
    model = ChatOpenAI(
        model="auto",
        base_url=os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1"),
        api_key=SecretStr(os.environ.get("OPENAI_API_KEY", "none")),
        temperature=0,
        max_completion_tokens=32,
        include_response_headers=True,
    )
    rating = ChatPromptTemplate.from_template("Rate the remark as positive, neutral or negative.\n{remark}")
    remarks = sys.argv[1:] or REMARKS
    answers = (rating | model).batch([{"remark": remark} for remark in remarks])
    for remark, answer in zip(remarks, answers, strict=True):
        told = answer.response_metadata["headers"]
        print(f"remark: {remark}")
        print(f"skill: {told['x-traitroute-adapter']}, predicted gain {told['x-traitroute-gain']}")
        print(f"answer: {answer.text}\n")


if __name__ == "__main__":
    main()
