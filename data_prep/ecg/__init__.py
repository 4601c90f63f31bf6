"""ECG-Expert-QA's questions, references and prompts."""
